//! `POST /v1/datasets`, `POST /v1/votes/import`, `GET /v1/imports/{id}`.

use std::sync::Arc;

use rocket::{
    Request, State, delete, get,
    http::{Header, Status},
    post,
    request::{FromRequest, Outcome},
    response::{Responder, status::NoContent},
    serde::json::Json,
};
use serde::Serialize;
use service::http::{Problem, RequestBody};
use utoipa::ToSchema;
use votes::{
    ContestId, DatasetId, ImportProgress,
    import::{BadRow, Import, ImportId, ImportState, Target},
};

use super::{
    Importer,
    intake::{IfExists, Wish},
};
use crate::{
    access::Allowed,
    parameters::Parameters,
    stores::{Stores, unavailable},
};

/// An import, and how far it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImportFacts {
    /// Its id.
    #[schema(format = "uuid")]
    import: String,
    /// The file's name.
    #[schema(example = "Ballots 2026.csv")]
    file: String,
    /// What its rows become: `dataset` or `votes`.
    #[serde(rename = "as")]
    #[schema(example = "dataset")]
    kind: &'static str,
    /// The dataset's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    /// The contest of votes that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    contest: Option<String>,
    /// `loading`, `done`, or `failed`: then `problem` says why.
    #[schema(example = "loading")]
    state: &'static str,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The length of the file.
    bytes: u64,
    /// Its rows, without the line of names.
    rows: u64,
    /// Rows that are loaded.
    loaded: u64,
    /// Rows that are bad, and are not loaded.
    bad: u64,
    /// Into how many chunks the file is cut.
    chunks: u32,
    /// How many of them are done.
    chunks_done: u32,
    /// The bad rows, in the order of the file, up to 100.
    bad_rows: Vec<BadRowFacts>,
}

/// A row that is not loaded.
#[derive(Serialize, ToSchema)]
struct BadRowFacts {
    /// The line on which it begins, from 1.
    line: u64,
    /// What is wrong.
    #[schema(example = "it has not as many cells as there are columns: 2, not 3")]
    problem: String,
}

impl ImportFacts {
    fn new(import: Import, progress: ImportProgress) -> Self {
        let (kind, dataset, contest) = match import.target {
            Target::Dataset { dataset, .. } => ("dataset", Some(dataset.to_string()), None),
            Target::Votes { contest } => ("votes", None, Some(contest.to_string())),
        };
        let (state, problem) = match import.state {
            ImportState::Loading => ("loading", None),
            ImportState::Done => ("done", None),
            ImportState::Failed { problem } => ("failed", Some(problem)),
        };
        let bad_rows = progress.loaded.bad_rows.into_iter();
        Self {
            import: import.id.to_string(),
            file: import.file,
            kind,
            dataset,
            contest,
            state,
            problem,
            bytes: import.contents.bytes,
            rows: import.contents.rows,
            loaded: progress.loaded.rows,
            bad: progress.loaded.bad,
            chunks: import.contents.chunks,
            chunks_done: progress.chunks,
            bad_rows: bad_rows.map(|BadRow { line, problem }| BadRowFacts { line, problem }).collect(),
        }
    }
}

/// 202, and where to ask how far it is.
pub(crate) struct Accepted(ImportFacts);

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        let place = format!("/v1/imports/{}", self.0.import);
        let mut response = Json(self.0).respond_to(request)?;
        response.set_status(Status::Accepted);
        response.set_header(Header::new("Location", place));
        Ok(response)
    }
}

/// The header `Content-Type`, with its parameters.
pub(crate) struct ContentType<'r>(&'r str);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for ContentType<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        Outcome::Success(Self(request.headers().get_one("Content-Type").unwrap_or_default()))
    }
}

/// Imports a file as a dataset.
///
/// A form with one file: comma-separated values (RFC 4180) in UTF-8, with a line of names. The answer comes when the file is stored; then it
/// will be loaded, whatever process ends. Bad rows are reported, and all others are loaded.
#[utoipa::path(
    tag = "datasets",
    params(
        ("name" = Option<String>, Query, description = "The dataset's name; that of the file if absent, as a slug", example = "ballots-2026"),
        ("if_exists" = Option<String>, Query, description = "What happens if there is one of the name: `refuse` (if absent), `replace`, or `number`, which makes it `NAME-2` and so on"),
    ),
    request_body(description = "The file, in any field", content((String = "multipart/form-data"))),
    responses(
        (status = 202, description = "The file is stored, and is being loaded", body = ImportFacts),
        (status = 400, description = "The form can't be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "There is a dataset of the name", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The file is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is no form", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The file, or a parameter, is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The file can't be stored now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[post("/v1/datasets?<parameters..>")]
pub(crate) async fn import_dataset(
    _allowed: Allowed,
    mut parameters: Parameters<'_>,
    content_type: ContentType<'_>,
    body: RequestBody,
    importer: &State<Importer>,
) -> Result<Accepted, Problem> {
    let name = parameters.take::<DatasetId>("name")?;
    let if_exists = parameters.take::<IfExists>("if_exists")?.unwrap_or_default();
    parameters.end()?;
    let import = importer.take(content_type.0, body, Wish::Dataset { name, if_exists }).await?;
    Ok(Accepted(ImportFacts::new(import, ImportProgress::default())))
}

/// Imports a file of votes.
///
/// Its columns are called as the fields of a vote are, in any case; each row goes through the door, and its rules. A row without a `vote_id` has one
/// that the file and the row's place in it decide, so a file that is imported twice is counted once.
#[utoipa::path(
    tag = "votes",
    params(("contest" = Option<String>, Query, description = "The contest of rows that name none; `bands` if absent", example = "bands")),
    request_body(description = "The file, in any field", content((String = "multipart/form-data"))),
    responses(
        (status = 202, description = "The file is stored, and its votes are being cast", body = ImportFacts),
        (status = 400, description = "The form can't be read", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The file is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "It is no form", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The file, or a parameter, is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The file can't be stored now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[post("/v1/votes/import?<parameters..>")]
pub(crate) async fn import_votes(
    _allowed: Allowed,
    mut parameters: Parameters<'_>,
    content_type: ContentType<'_>,
    body: RequestBody,
    stores: &State<Arc<Stores>>,
    importer: &State<Importer>,
) -> Result<Accepted, Problem> {
    let contest = parameters.take::<String>("contest")?;
    parameters.end()?;
    let contest: ContestId = stores.contest(contest.as_deref())?.clone();
    let import = importer.take(content_type.0, body, Wish::Votes { contest }).await?;
    Ok(Accepted(ImportFacts::new(import, ImportProgress::default())))
}

/// How far an import is.
#[utoipa::path(
    tag = "datasets",
    params(("import" = String, Path, description = "The import's id")),
    responses(
        (status = 200, description = "The import", body = ImportFacts),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such import", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "What is known of imports can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[get("/v1/imports/<import>")]
pub(crate) async fn import(
    _allowed: Allowed,
    import: &str,
    importer: &State<Importer>,
) -> Result<Json<ImportFacts>, Problem> {
    let missing = || Problem::plain(Status::NotFound, "there is no such import");
    let id: ImportId = import.parse().map_err(|_| missing())?;
    let imports = &importer.0.stores.imports;
    let found = imports.find(id).await.map_err(|error| unavailable(&error))?.ok_or_else(missing)?;
    let progress = imports.progress(id).await.map_err(|error| unavailable(&error))?;
    Ok(Json(ImportFacts::new(found, progress)))
}

/// Removes a dataset, with its rows. Its file stays in the object store.
#[utoipa::path(
    tag = "datasets",
    params(("dataset" = String, Path, description = "The dataset's name", example = "ballots-2026")),
    responses(
        (status = 204, description = "It is removed"),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Datasets can't be changed now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[delete("/v1/datasets/<dataset>")]
pub(crate) async fn remove_dataset(
    _allowed: Allowed,
    dataset: &str,
    importer: &State<Importer>,
) -> Result<NoContent, Problem> {
    let missing = || Problem::plain(Status::NotFound, "there is no such dataset");
    let id: DatasetId = dataset.parse().map_err(|_| missing())?;
    let removed = importer.0.datasets.remove(&id).await.map_err(|error| unavailable(&error))?;
    if removed { Ok(NoContent) } else { Err(missing()) }
}
