//! `GET /v1/datasets` and `GET /v1/datasets/{name}`: the query API over datasets.

use std::sync::Arc;

use rocket::{State, get, http::Status, serde::json::Json};
use serde::Serialize;
use service::http::Problem;
use utoipa::ToSchema;
use votes::{
    Dataset, DatasetId, Table,
    query::{Query, Schema},
};

use crate::{
    access::Allowed,
    answer::Answer,
    openapi,
    parameters::Parameters,
    question::{Manner, Question, Wanted},
    reading::Reader,
    stores::{Stores, unavailable},
};

/// The datasets.
#[derive(Serialize, ToSchema)]
pub(crate) struct DatasetList {
    /// By name.
    datasets: Vec<DatasetFacts>,
}

/// A dataset.
#[derive(Serialize, ToSchema)]
struct DatasetFacts {
    /// Its name.
    #[schema(example = "ballots-2026")]
    dataset: String,
    /// How many rows it has.
    rows: u64,
    /// Whether all of them are there.
    finished: bool,
    /// Raised when rows were added.
    version: u64,
    /// Its columns.
    columns: Vec<ColumnFacts>,
}

/// A column of a dataset.
#[derive(Serialize, ToSchema)]
struct ColumnFacts {
    /// Its name, as it is in the file.
    name: String,
    /// What it is asked for by: its name, or where that would not find it its place, `column.N`.
    field: String,
    /// Whether an index finds its values.
    indexed: bool,
}

impl From<&Dataset> for DatasetFacts {
    fn from(dataset: &Dataset) -> Self {
        let schema = Schema::dataset(&dataset.columns);
        let column = |(index, name): (usize, &String)| ColumnFacts {
            name: name.clone(),
            field: schema.field(index),
            indexed: dataset.indexed().contains(&index),
        };
        Self {
            dataset: dataset.id.to_string(),
            rows: dataset.rows,
            finished: dataset.is_finished,
            version: dataset.version,
            columns: dataset.columns.iter().enumerate().map(column).collect(),
        }
    }
}

/// The datasets, by name, with their columns.
#[utoipa::path(
    tag = "datasets",
    responses(
        (status = 200, description = "Every dataset", body = DatasetList),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The datasets can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[get("/v1/datasets")]
pub(crate) async fn datasets(_allowed: Allowed, stores: &State<Arc<Stores>>) -> Result<Json<DatasetList>, Problem> {
    let datasets = stores.datasets().await.map_err(|error| unavailable(&error))?;
    Ok(Json(DatasetList { datasets: datasets.iter().map(DatasetFacts::from).collect() }))
}

/// Rows of a dataset, in the order of its file unless something else is asked.
///
/// Columns are asked for by name, in any case, or by place, as `column.N`; values are text, and compare as numbers where they look like
/// numbers. The grammar is that of `/v1/votes`, and `docs/api.md` has all of it.
#[utoipa::path(
    tag = "datasets",
    params(
        ("dataset" = String, Path, description = "The dataset's name", example = "ballots-2026"),
        ("sort" = Option<String>, Query, description = "Up to 4 columns, like `year:desc,name:asc`"),
        ("limit" = Option<String>, Query, description = "`count` or `skip,count`: count 1 to 50 000, 100 if absent; both together at most 100 000. NDJSON and CSV have all rows if absent", example = "100"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before: this page begins after it"),
        ("fields" = Option<String>, Query, description = "Only these columns, in this order"),
        ("allow_scan" = Option<bool>, Query, description = "Whether any number of rows may be looked at"),
        ("via" = Option<String>, Query, description = "`cache` (if absent), `pool` or `direct`"),
        ("max_age" = Option<String>, Query, description = "How old a kept answer may be although there are newer rows, like `5s`, up to `10m`; `0s` if absent", example = "5s"),
        ("format" = Option<String>, Query, description = "`json`, `ndjson` or `csv`; else as `Accept` says"),
    ),
    responses(
        (status = 200, description = "Rows", content((openapi::RowsAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such dataset", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The archive can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[get("/v1/datasets/<dataset>?<parameters..>")]
pub(crate) async fn find_rows(
    _allowed: Allowed,
    dataset: &str,
    mut parameters: Parameters<'_>,
    wanted: Wanted,
    stores: &State<Arc<Stores>>,
    reader: &State<Reader>,
) -> Result<Answer, Problem> {
    let missing =
        || Problem::plain(Status::NotFound, "there is no such dataset; /v1/datasets has those that there are");
    let id: DatasetId = dataset.parse().map_err(|_| missing())?;
    let dataset = stores.dataset(&id).await.map_err(|error| unavailable(&error))?.ok_or_else(missing)?;
    let manner = Manner::take(&mut parameters, wanted)?;
    let schema = Schema::dataset(&dataset.columns);
    let query = Query::parse(&schema, parameters.rest())?;
    reader.answer(Question { table: Table::Dataset(Arc::new(dataset)), schema, query, manner }).await
}
