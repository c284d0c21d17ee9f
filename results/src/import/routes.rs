//! The routes of imports: `POST /v1/datasets`, `POST /v1/votes/import`, `GET /v1/imports/{id}`, `DELETE
//! /v1/datasets/{name}`.

use api::{BadRowInfo, IfExists, ImportInfo};
use query::{
    DatasetId, ImportProgress,
    import::{BadRow, Import, ImportId, ImportState, Target},
};
use rocket::{
    Request, State, delete, get,
    http::{Header, Status},
    post,
    request::{FromRequest, Outcome},
    response::{Responder, status::NoContent},
    serde::json::Json,
};
use service::http::{Problem, RequestBody};
use votes::ContestId;

use super::{importer::Importer, upload::UploadTarget};
use crate::{
    access::Authorized,
    contests::ContestNames,
    parameters::Parameters,
    problems::{
        DatasetExists, InvalidUpload, StoreUnavailable, TokenRequired, UnknownContest, UnknownDataset, UnknownImport,
        unavailable,
    },
};

/// The response 202. The header `Location` has the path of the import.
pub(crate) struct Accepted(ImportInfo);

impl<'r> Responder<'r, 'static> for Accepted {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        let location = format!("/v1/imports/{}", self.0.import);
        let mut response = Json(self.0).respond_to(request)?;
        response.set_status(Status::Accepted);
        response.set_header(Header::new("Location", location));
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
/// Send a form with one file: comma-separated values (RFC 4180) in UTF-8, with a header line. The response is sent
/// after the file is stored. From then on, the file is loaded, even if a process ends. Bad rows are reported, and all
/// other rows are loaded.
#[utoipa::path(
    tag = "datasets",
    params(
        ("name" = Option<String>, Query, description = "The name of the dataset; by default the name of the file as a slug", example = "ballots-2026"),
        ("if_exists" = Option<String>, Query, description = "What to do if a dataset with this name exists: `refuse` (the default), `replace`, or `number`, which names the new dataset `NAME-2` and so on"),
    ),
    request_body(description = "The file, in any field of the form", content((String = "multipart/form-data"))),
    responses(
        (status = 202, description = "The file is stored, and will be loaded", body = ImportInfo),
        TokenRequired,
        DatasetExists,
        InvalidUpload,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[post("/v1/datasets?<parameters..>")]
pub(crate) async fn import_dataset(
    _authorized: Authorized,
    mut parameters: Parameters<'_>,
    content_type: ContentType<'_>,
    body: RequestBody,
    importer: &State<Importer>,
) -> Result<Accepted, Problem> {
    let name = parameters.take::<DatasetId>("name")?;
    let if_exists = parameters.take::<IfExists>("if_exists")?.unwrap_or_default();
    parameters.refuse_unknown()?;
    let import = importer.upload(content_type.0, body, UploadTarget::Dataset { name, if_exists }).await?;
    Ok(Accepted(import_info(import, ImportProgress::default())))
}

/// Imports a file of votes.
///
/// The columns must have the names of the fields of a vote, in upper or lower case. Each row must follow the rules of
/// the producers. A row without a `vote_id` gets an id that is derived from the content of the file and the number of
/// the row. So a file that is imported twice is counted once.
#[utoipa::path(
    tag = "votes",
    params(("contest" = Option<String>, Query, description = "The contest of rows without a contest; `bands` by default", example = "bands")),
    request_body(description = "The file, in any field of the form", content((String = "multipart/form-data"))),
    responses(
        (status = 202, description = "The file is stored, and its votes will be cast", body = ImportInfo),
        TokenRequired,
        UnknownContest,
        InvalidUpload,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[post("/v1/votes/import?<parameters..>")]
pub(crate) async fn import_votes(
    _authorized: Authorized,
    mut parameters: Parameters<'_>,
    content_type: ContentType<'_>,
    body: RequestBody,
    contests: &State<ContestNames>,
    importer: &State<Importer>,
) -> Result<Accepted, Problem> {
    let contest = parameters.take::<String>("contest")?;
    parameters.refuse_unknown()?;
    let contest: ContestId = contests.named(contest.as_deref())?.clone();
    let import = importer.upload(content_type.0, body, UploadTarget::Votes { contest }).await?;
    Ok(Accepted(import_info(import, ImportProgress::default())))
}

/// Returns an import and its progress.
#[utoipa::path(
    tag = "datasets",
    params(("import" = String, Path, description = "The id of the import")),
    responses(
        (status = 200, description = "The import", body = ImportInfo),
        TokenRequired,
        UnknownImport,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[get("/v1/imports/<import>")]
pub(crate) async fn import(
    _authorized: Authorized,
    import: &str,
    importer: &State<Importer>,
) -> Result<Json<ImportInfo>, Problem> {
    let missing = || Problem::plain(Status::NotFound, "there is no such import");
    let id: ImportId = import.parse().map_err(|_| missing())?;
    let imports = &importer.0.stores.imports;
    let found = imports.find(id).await.map_err(|error| unavailable(&error))?.ok_or_else(missing)?;
    let progress = imports.progress(id).await.map_err(|error| unavailable(&error))?;
    Ok(Json(import_info(found, progress)))
}

/// Removes a dataset with its rows. The imported file stays in the object store.
#[utoipa::path(
    tag = "datasets",
    params(("dataset" = String, Path, description = "The name of the dataset", example = "ballots-2026")),
    responses(
        (status = 204, description = "The dataset was removed"),
        TokenRequired,
        UnknownDataset,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[delete("/v1/datasets/<dataset>")]
pub(crate) async fn remove_dataset(
    _authorized: Authorized,
    dataset: &str,
    importer: &State<Importer>,
) -> Result<NoContent, Problem> {
    let missing = || Problem::plain(Status::NotFound, "there is no such dataset");
    let id: DatasetId = dataset.parse().map_err(|_| missing())?;
    let removed = importer.0.datasets.remove(&id).await.map_err(|error| unavailable(&error))?;
    if removed { Ok(NoContent) } else { Err(missing()) }
}

fn import_info(import: Import, progress: ImportProgress) -> ImportInfo {
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
    ImportInfo {
        import: import.id.to_string(),
        file: import.file,
        kind: kind.to_owned(),
        dataset,
        contest,
        state: state.to_owned(),
        problem,
        bytes: import.contents.bytes,
        rows: import.contents.rows,
        loaded: progress.loaded.rows,
        bad: progress.loaded.bad,
        chunks: import.contents.chunks,
        chunks_done: progress.chunks,
        bad_rows: bad_rows.map(|BadRow { line, problem }| BadRowInfo { line, problem }).collect(),
    }
}
