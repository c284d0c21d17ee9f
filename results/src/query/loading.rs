//! This module runs a query in the query store.

use std::sync::Arc;

use query::{CachedResponse, Found, Table};
use votes::{Refusal, StoreError, UnixMillis};

use super::{
    request::{QueryRequest, ReadPath},
    response::write_members,
    stores::QueryStores,
};

/// The outcome of a query.
#[derive(Clone)]
pub(crate) enum QueryOutcome {
    /// The members of the response.
    Response(Arc<CachedResponse>),
    /// The query would examine more rows than this number.
    TooManyRows(usize),
    /// The query store failed.
    Failed(StoreError),
}

/// Runs a query. `version` is the version of the data that the response depends on. The caller must read the version
/// before this call.
pub(crate) async fn load(stores: &QueryStores, request: &QueryRequest, via: ReadPath, version: u64) -> QueryOutcome {
    let QueryRequest { table, schema, query, .. } = request;
    let read_at = UnixMillis::now();
    match stores.find(via == ReadPath::Direct, table, query).await {
        Ok(Found::Page(page)) => {
            let body = write_members(table, schema, query, &page);
            QueryOutcome::Response(Arc::new(CachedResponse { version, read_at, body }))
        }
        Ok(Found::TooManyRows(max)) => QueryOutcome::TooManyRows(max),
        Err(error) => QueryOutcome::Failed(error),
    }
}

/// Returns the refusal of a query that would examine more than `max` rows (422). The detail names the indexes of the
/// table.
pub(crate) fn too_many_rows(table: &Table, max: usize) -> Refusal {
    let indexed = match table {
        Table::Votes => {
            "these have an index: contest with accepted_at, contest with name (on MongoDB), and partition with offset"
                .to_owned()
        }
        Table::Dataset(dataset) if dataset.indexed().is_empty() => {
            "no column has an index until all rows are loaded".to_owned()
        }
        Table::Dataset(dataset) => format!("the first {} columns have an index", dataset.indexed().len()),
    };
    let detail = format!(
        "the query would examine more than {max} rows; add a condition that can use an index ({indexed}), or allow_scan=true"
    );
    Refusal::field("allow_scan", detail)
}
