//! Takes a file: to the object store, and into chunks while it comes.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use multer::{Constraints, Field, Multipart, SizeLimit};
use rocket::http::Status;
use service::http::{Problem, RequestBody};
use tokio::time::timeout;
use votes::{
    ContestId, Dataset, DatasetId, Reason, Refusal, StoreError, UnixMillis,
    import::{BadFile, Ballots, Chunk, Contents, Import, ImportId, ImportState, Splitter, Target},
};

use super::{Importer, object};

/// The largest file, in bytes.
const MAX_FILE: u64 = 16 << 30;

/// What is collected of a file before it is stored: the object store's own parts are larger.
const PIECE: usize = 256 << 10;

/// How long a client may send nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// How long what follows is read of a form that is refused.
const DRAIN: Duration = Duration::from_secs(10);

/// So many names are tried for a dataset whose name is taken.
const NAMES: u32 = 1_000;

/// What a file is to become.
pub(super) enum Wish {
    Dataset {
        /// Its name; that of the file if absent.
        name: Option<DatasetId>,
        if_exists: IfExists,
    },
    Votes {
        /// The contest of rows that name none.
        contest: ContestId,
    },
}

/// What happens if there is a dataset of the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum IfExists {
    /// The file is refused.
    #[default]
    Refuse,
    /// The other dataset is removed.
    Replace,
    /// This one is called `NAME-2`, `NAME-3` and so on.
    Number,
}

impl std::str::FromStr for IfExists {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "replace" => Ok(Self::Replace),
            "number" => Ok(Self::Number),
            _ => Err("must be refuse, replace or number"),
        }
    }
}

impl Importer {
    /// Takes the file of a form, and returns once it will be loaded whatever happens.
    pub(super) async fn take(&self, content_type: &str, body: RequestBody, wish: Wish) -> Result<Import, Problem> {
        let boundary = multer::parse_boundary(content_type).map_err(|_| {
            let detail = "a file comes as multipart/form-data, as curl --form file=@FILE sends it";
            Refusal::new(Reason::UnsupportedMediaType, detail)
        })?;
        let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(MAX_FILE));
        let mut form = Multipart::with_constraints(arriving(body), boundary, limits);
        let outcome = self.read(&mut form, wish).await;
        if outcome.is_err() {
            // Who still sends reads the answer sooner or later, if the connection is not closed before.
            tokio::spawn(timeout(DRAIN, async move { while let Ok(Some(_)) = form.next_field().await {} }));
        }
        outcome
    }

    async fn read(&self, form: &mut Multipart<'static>, wish: Wish) -> Result<Import, Problem> {
        let mut file = match form.next_field().await.map_err(broken)? {
            Some(field) if field.file_name().is_some() => field,
            Some(field) => {
                let detail = "is no file; what else there is to say is said in the query";
                return Err(Refusal::field(field.name().unwrap_or_default(), detail).into());
            }
            None => return Err(Refusal::field("file", "is missing; the form has to have a file").into()),
        };
        let name = file.file_name().unwrap_or_default().to_owned();
        // Before gigabytes have come.
        let wish = self.resolve(wish, &name).await?;
        let id = ImportId::new();
        let (contents, chunks) = self.store(id, &mut file).await?;
        drop(file);
        if form.next_field().await.map_err(broken)?.is_some() {
            return Err(Refusal::field("file", "is not all there is; one file at a time").into());
        }
        let importer = self.clone();
        // The client may leave now; its file will be there all the same, or not at all.
        let begun = tokio::spawn(async move { importer.begin(id, name, wish, contents, chunks).await });
        match begun.await {
            Ok(Ok(import)) => Ok(import),
            Ok(Err(problem)) => {
                let _ = self.0.stores.objects.remove(&object(id)).await;
                Err(problem)
            }
            Err(error) => Err(Problem::plain(Status::InternalServerError, error.to_string())),
        }
    }

    /// The name of a dataset, if the file has to give it; and whether it is free, if it has to be.
    async fn resolve(&self, wish: Wish, file: &str) -> Result<Wish, Problem> {
        let Wish::Dataset { name, if_exists } = wish else { return Ok(wish) };
        let no_name =
            || Refusal::field("name", format_args!("is missing, and {file:?} gives none; give one, as ?name=ballots"));
        let name = name.or_else(|| DatasetId::of_file(file)).ok_or_else(no_name)?;
        if if_exists == IfExists::Refuse && self.0.datasets.describe(&name).await.map_err(failed)?.is_some() {
            return Err(taken(&name));
        }
        Ok(Wish::Dataset { name: Some(name), if_exists })
    }

    async fn store(&self, id: ImportId, file: &mut Field<'_>) -> Result<(Contents, Vec<Chunk>), Problem> {
        let mut writer = self.0.stores.objects.create(&object(id)).await.map_err(failed)?;
        let mut splitter = Splitter::default();
        let mut piece = Vec::with_capacity(PIECE);
        while let Some(bytes) = file.chunk().await.map_err(broken)? {
            splitter.read(&bytes).map_err(bad)?;
            piece.extend_from_slice(&bytes);
            if piece.len() >= PIECE {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE));
                writer.write(full).await.map_err(failed)?;
            }
        }
        let split = splitter.finish(id).map_err(bad)?;
        writer.write(piece).await.map_err(failed)?;
        writer.finish().await.map_err(failed)?;
        Ok(split)
    }

    async fn begin(
        &self,
        id: ImportId,
        file: String,
        wish: Wish,
        contents: Contents,
        chunks: Vec<Chunk>,
    ) -> Result<Import, Problem> {
        let target = match wish {
            Wish::Votes { contest } => {
                Ballots::new(&contents, contest.clone())?;
                Target::Votes { contest }
            }
            Wish::Dataset { name: None, .. } => return Err(Refusal::field("name", "is missing").into()),
            Wish::Dataset { name: Some(name), if_exists } => {
                let dataset = self.make(&name, if_exists, &contents.columns).await?;
                Target::Dataset { dataset: dataset.id, generation: dataset.generation }
            }
        };
        let import = Import { id, file, begun_at: UnixMillis::now(), target, contents, state: ImportState::Loading };
        if let Err(error) = self.0.stores.imports.begin(&import, &chunks).await {
            if let Target::Dataset { dataset, generation } = &import.target
                && let Ok(Some(made)) = self.0.datasets.describe(dataset).await
                && made.generation == *generation
            {
                let _ = self.0.datasets.remove(dataset).await;
            }
            return Err(failed(error));
        }
        if let Err(error) = self.0.stores.chunks.publish(&chunks).await {
            // They will be published when nobody has done them.
            tracing::warn!(%import.id, error = %error.problem, "chunks can't be published now");
        }
        self.0.progress.notify_one();
        tracing::info!(%import.id, bytes = import.contents.bytes, rows = import.contents.rows, "a file is stored");
        Ok(import)
    }

    /// Makes the dataset.
    async fn make(&self, name: &DatasetId, if_exists: IfExists, columns: &[String]) -> Result<Dataset, Problem> {
        let datasets = &self.0.datasets;
        for number in 1..NAMES {
            let numbered = if number == 1 { Some(name.clone()) } else { name.numbered(number) };
            let wanted =
                if if_exists == IfExists::Number { numbered.ok_or_else(|| taken(name))? } else { name.clone() };
            if let Some(dataset) = datasets.create(&wanted, columns.to_vec()).await.map_err(failed)? {
                return Ok(dataset);
            }
            match if_exists {
                IfExists::Refuse => break,
                IfExists::Replace => _ = datasets.remove(name).await.map_err(failed)?,
                IfExists::Number => {}
            }
        }
        Err(taken(name))
    }
}

/// The body as it comes, if it does.
fn arriving(body: RequestBody) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    stream::unfold(body, |mut body| async {
        let next = match timeout(SILENCE, body.chunk()).await {
            Ok(next) => next?.map_err(std::io::Error::other),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        Some((next, body))
    })
}

/// 409.
fn taken(name: &DatasetId) -> Problem {
    let detail = format!(
        "there is a dataset {name}; choose another ?name=, or ?if_exists=replace to remove that one first, or ?if_exists=number for a \
         name with a number"
    );
    Problem::plain(Status::Conflict, detail)
}

fn bad(file: BadFile) -> Problem {
    Refusal::field("file", file).into()
}

/// What is wrong with the form, or with its way here.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn broken(error: multer::Error) -> Problem {
    let source = match &error {
        multer::Error::StreamReadFailed(source) => source.downcast_ref::<std::io::Error>(),
        _ => None,
    };
    let (reason, detail) = match &error {
        multer::Error::StreamSizeExceeded { .. } => (Reason::TooLarge, format!("a file has at most {MAX_FILE} bytes")),
        _ if source.is_some_and(|source| source.kind() == std::io::ErrorKind::TimedOut) => {
            (Reason::SlowBody, format!("nothing came for {SILENCE:?}"))
        }
        _ => (Reason::MalformedBody, format!("the form can't be read: {error}")),
    };
    Refusal::new(reason, detail).into()
}

/// 503. The driver's words are for the log.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn failed(error: StoreError) -> Problem {
    tracing::warn!(store = error.store, error = %error.problem, "a file was not taken");
    let detail = format!("the file can't be stored now (what fails: {}); send it again", error.store);
    Problem::plain(Status::ServiceUnavailable, detail)
}
