//! `GET /v1/datasets` and `GET /v1/datasets/{name}`: the list of datasets, and queries for their rows.

use std::sync::Arc;

use api::{ColumnInfo, DatasetInfo, DatasetList, RowsResponse};
use query::{Dataset, DatasetId, Query, Schema, Table};
use rocket::{State, get, http::Status, serde::json::Json};
use service::http::Problem;

use super::{
    reader::Reader,
    request::{PreferredFormat, QueryRequest, ReadOptions, ReadParameters},
    response::QueryResponse,
    stores::QueryStores,
};
use crate::{
    access::Authorized,
    parameters::Parameters,
    problems::{InvalidParameter, StoreUnavailable, TokenRequired, UnknownDataset, unavailable},
};

/// Returns all datasets with their columns, sorted by name.
#[utoipa::path(
    tag = "datasets",
    responses(
        (status = 200, description = "The datasets", body = DatasetList),
        TokenRequired,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[get("/v1/datasets")]
pub(crate) async fn datasets(
    _authorized: Authorized,
    stores: &State<Arc<QueryStores>>,
) -> Result<Json<DatasetList>, Problem> {
    let datasets = stores.datasets().await.map_err(|error| unavailable(&error))?;
    Ok(Json(DatasetList { datasets: datasets.iter().map(dataset_info).collect() }))
}

/// Returns rows of a dataset, in the order of its file by default.
///
/// Every column can be a condition: write its name, in upper or lower case, or its number as `column.N`. Values are
/// text. Values that look like numbers are compared as numbers. The grammar is the same as for votes; `docs/api.md`
/// describes it.
#[utoipa::path(
    tag = "datasets",
    params(
        ("dataset" = String, Path, description = "The name of the dataset", example = "ballots-2026"),
        ReadParameters,
    ),
    responses(
        (status = 200, description = "Rows", content((RowsResponse = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        TokenRequired,
        UnknownDataset,
        InvalidParameter,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[get("/v1/datasets/<dataset>?<parameters..>")]
pub(crate) async fn find_rows(
    _authorized: Authorized,
    dataset: &str,
    mut parameters: Parameters<'_>,
    format: PreferredFormat,
    stores: &State<Arc<QueryStores>>,
    reader: &State<Reader>,
) -> Result<QueryResponse, Problem> {
    let missing = || Problem::plain(Status::NotFound, "there is no such dataset; /v1/datasets lists all datasets");
    let id: DatasetId = dataset.parse().map_err(|_| missing())?;
    let dataset = stores.dataset(&id).await.map_err(|error| unavailable(&error))?.ok_or_else(missing)?;
    let options = ReadOptions::take(&mut parameters, format)?;
    let schema = Schema::dataset(&dataset.columns);
    let query = Query::parse(&schema, parameters.into_rest())?;
    reader.respond(QueryRequest { table: Table::Dataset(Arc::new(dataset)), schema, query, options }).await
}

fn dataset_info(dataset: &Dataset) -> DatasetInfo {
    let schema = Schema::dataset(&dataset.columns);
    let column = |(index, name): (usize, &String)| ColumnInfo {
        name: name.clone(),
        field: schema.field(index),
        indexed: dataset.indexed().contains(&index),
    };
    DatasetInfo {
        dataset: dataset.id.to_string(),
        rows: dataset.rows,
        finished: dataset.is_finished,
        version: dataset.version,
        columns: dataset.columns.iter().enumerate().map(column).collect(),
    }
}
