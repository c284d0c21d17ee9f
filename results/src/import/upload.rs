//! This module receives a file, stores it in the object store, and splits it into chunks at the same time.

use std::time::Duration;

use api::IfExists;
use bytes::Bytes;
use futures::{Stream, stream};
use multer::{Constraints, Field, Multipart, SizeLimit};
use query::{
    Dataset, DatasetId,
    import::{BadFile, Chunk, Contents, Import, ImportId, ImportState, Splitter, Target, VoteMapper},
};
use rocket::http::Status;
use service::http::{Problem, RequestBody};
use tokio::time::timeout;
use votes::{ContestId, Reason, Refusal, StoreError, UnixMillis};

use super::importer::{Importer, object_name};

/// The largest file, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 30;

/// The size of the pieces that are written to the object store, in bytes. The object store combines them to larger
/// parts.
const PIECE_BYTES: usize = 256 << 10;

/// The longest time for which a client may send no data.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time for which the rest of a refused form is read.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The number of attempts to create a dataset. With `if_exists=number`, each attempt has another number in the name.
const MAX_CREATE_ATTEMPTS: u32 = 999;

/// What the rows of an uploaded file become.
pub(super) enum UploadTarget {
    Dataset {
        /// The name of the dataset. If this is `None`, the name is derived from the name of the file.
        name: Option<DatasetId>,
        if_exists: IfExists,
    },
    Votes {
        /// The contest of rows without a contest.
        contest: ContestId,
    },
}

impl Importer {
    /// Receives the file of a form. After `Ok`, the file is loaded even if this process ends.
    pub(super) async fn upload(
        &self,
        content_type: &str,
        body: RequestBody,
        target: UploadTarget,
    ) -> Result<Import, Problem> {
        let boundary = multer::parse_boundary(content_type).map_err(|_| {
            let detail = "a file must be sent as multipart/form-data, as by curl --form file=@FILE";
            Refusal::new(Reason::UnsupportedMediaType, detail)
        })?;
        let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(MAX_FILE_BYTES));
        let mut form = Multipart::with_constraints(body_stream(body), boundary, limits);
        let outcome = self.read_form(&mut form, target).await;
        if outcome.is_err() {
            // A client that is still sending can read the response only if the connection stays open.
            tokio::spawn(timeout(DRAIN_TIMEOUT, async move { while let Ok(Some(_)) = form.next_field().await {} }));
        }
        outcome
    }

    /// Reads the form, stores its file, and creates the import.
    async fn read_form(&self, form: &mut Multipart<'static>, target: UploadTarget) -> Result<Import, Problem> {
        let mut file = match form.next_field().await.map_err(form_problem)? {
            Some(field) if field.file_name().is_some() => field,
            Some(field) => {
                let detail = "is not a file; the form has only the file, and all options are parameters of the URL";
                return Err(Refusal::field(field.name().unwrap_or_default(), detail).into());
            }
            None => return Err(Refusal::field("file", "is missing; the form must have a file").into()),
        };
        let name = file.file_name().unwrap_or_default().to_owned();
        // The name is checked before the file is read, because the file may have gigabytes.
        let target = self.resolve_name(target, &name).await?;
        let id = ImportId::new();
        let (contents, chunks) = self.store_file(id, &mut file).await?;
        drop(file);
        if form.next_field().await.map_err(form_problem)?.is_some() {
            return Err(Refusal::field("file", "must be the only field of the form").into());
        }
        let importer = self.clone();
        // The task continues if the client disconnects. So the import is created completely or not at all.
        let created = tokio::spawn(async move { importer.create_import(id, name, target, contents, chunks).await });
        match created.await {
            Ok(Ok(import)) => Ok(import),
            Ok(Err(problem)) => {
                let _ = self.0.stores.objects.remove(&object_name(id)).await;
                Err(problem)
            }
            Err(error) => Err(Problem::plain(Status::InternalServerError, error.to_string())),
        }
    }

    /// Derives the name of the dataset from the name of the file, if the request has no name. If `if_exists` requires
    /// it, refuses the name of an existing dataset.
    async fn resolve_name(&self, target: UploadTarget, file: &str) -> Result<UploadTarget, Problem> {
        let UploadTarget::Dataset { name, if_exists } = target else { return Ok(target) };
        let no_name = || {
            let detail = format!("is missing and can't be derived from the file {file:?}; add it, as ?name=ballots");
            Refusal::field("name", detail)
        };
        let name = name.or_else(|| DatasetId::of_file(file)).ok_or_else(no_name)?;
        if if_exists == IfExists::Refuse && self.0.datasets.describe(&name).await.map_err(store_problem)?.is_some() {
            return Err(name_taken(&name));
        }
        Ok(UploadTarget::Dataset { name: Some(name), if_exists })
    }

    /// Stores the file, and splits it into chunks.
    async fn store_file(&self, id: ImportId, file: &mut Field<'_>) -> Result<(Contents, Vec<Chunk>), Problem> {
        let mut writer = self.0.stores.objects.create(&object_name(id)).await.map_err(store_problem)?;
        let mut splitter = Splitter::default();
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        while let Some(bytes) = file.chunk().await.map_err(form_problem)? {
            splitter.read(&bytes).map_err(bad_file)?;
            piece.extend_from_slice(&bytes);
            if piece.len() >= PIECE_BYTES {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE_BYTES));
                writer.write(full).await.map_err(store_problem)?;
            }
        }
        let split = splitter.finish(id).map_err(bad_file)?;
        writer.write(piece).await.map_err(store_problem)?;
        writer.finish().await.map_err(store_problem)?;
        Ok(split)
    }

    /// Creates the import of a stored file: creates the dataset, stores the import, and publishes the chunks.
    async fn create_import(
        &self,
        id: ImportId,
        file: String,
        upload_target: UploadTarget,
        contents: Contents,
        chunks: Vec<Chunk>,
    ) -> Result<Import, Problem> {
        let target = match upload_target {
            UploadTarget::Votes { contest } => {
                VoteMapper::new(&contents, contest.clone())?;
                Target::Votes { contest }
            }
            UploadTarget::Dataset { name: None, .. } => return Err(Refusal::field("name", "is missing").into()),
            UploadTarget::Dataset { name: Some(name), if_exists } => {
                let dataset = self.create_dataset(&name, if_exists, &contents.columns).await?;
                Target::Dataset { dataset: dataset.id, generation: dataset.generation }
            }
        };
        let import = Import { id, file, begun_at: UnixMillis::now(), target, contents, state: ImportState::Loading };
        if let Err(error) = self.0.stores.imports.create(&import, &chunks).await {
            if let Target::Dataset { dataset, generation } = &import.target
                && let Ok(Some(created)) = self.0.datasets.describe(dataset).await
                && created.generation == *generation
            {
                let _ = self.0.datasets.remove(dataset).await;
            }
            return Err(store_problem(error));
        }
        if let Err(error) = self.0.stores.chunks.publish(&chunks).await {
            // The reconciler publishes the chunks later, because no worker loads them.
            tracing::warn!(%import.id, error = %error.problem, "the chunks of an import can't be published now");
        }
        self.0.progress.notify_one();
        tracing::info!(%import.id, bytes = import.contents.bytes, rows = import.contents.rows, "a file is stored");
        Ok(import)
    }

    /// Creates the dataset under its name, or under a name with a number if `if_exists` allows that.
    async fn create_dataset(
        &self,
        name: &DatasetId,
        if_exists: IfExists,
        columns: &[String],
    ) -> Result<Dataset, Problem> {
        let datasets = &self.0.datasets;
        for number in 1..=MAX_CREATE_ATTEMPTS {
            let numbered = if number == 1 { Some(name.clone()) } else { name.numbered(number) };
            let candidate =
                if if_exists == IfExists::Number { numbered.ok_or_else(|| name_taken(name))? } else { name.clone() };
            if let Some(dataset) = datasets.create(&candidate, columns.to_vec()).await.map_err(store_problem)? {
                return Ok(dataset);
            }
            match if_exists {
                IfExists::Refuse => break,
                IfExists::Replace => _ = datasets.remove(name).await.map_err(store_problem)?,
                IfExists::Number => {}
            }
        }
        Err(name_taken(name))
    }
}

/// Returns the body as a stream. The stream fails if the client sends nothing for [`IDLE_TIMEOUT`].
fn body_stream(body: RequestBody) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::unfold(body, |mut body| async {
        let next = match timeout(IDLE_TIMEOUT, body.chunk()).await {
            Ok(next) => next?.map_err(std::io::Error::other),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        Some((next, body))
    })
}

/// Returns the problem of a name that is taken (409).
fn name_taken(name: &DatasetId) -> Problem {
    let detail = format!(
        "another dataset has the name {name}; choose another name with ?name=, or remove that dataset with ?if_exists=replace, \
         or add a number to the name with ?if_exists=number"
    );
    Problem::plain(Status::Conflict, detail)
}

fn bad_file(file: BadFile) -> Problem {
    Refusal::field("file", file).into()
}

/// Returns the problem of a form that can't be read, or that did not arrive in time.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
fn form_problem(error: multer::Error) -> Problem {
    let source = match &error {
        multer::Error::StreamReadFailed(source) => source.downcast_ref::<std::io::Error>(),
        _ => None,
    };
    let (reason, detail) = match &error {
        multer::Error::StreamSizeExceeded { .. } => {
            (Reason::TooLarge, format!("the form has more than {MAX_FILE_BYTES} bytes"))
        }
        _ if source.is_some_and(|source| source.kind() == std::io::ErrorKind::TimedOut) => {
            (Reason::SlowBody, format!("no data arrived for {IDLE_TIMEOUT:?}"))
        }
        _ => (Reason::MalformedBody, format!("the form can't be read: {error}")),
    };
    Refusal::new(reason, detail).into()
}

/// Returns the problem of a store that fails (503). The driver's error is only logged.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
fn store_problem(error: StoreError) -> Problem {
    tracing::warn!(store = error.store, error = %error.problem, "a file could not be stored");
    let detail = format!("the file can't be stored now, because the {} failed; send the file again", error.store);
    Problem::plain(Status::ServiceUnavailable, detail)
}
