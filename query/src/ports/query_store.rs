//! The query store runs queries on the votes of the ledger and the rows of datasets.

use std::sync::Arc;

use async_trait::async_trait;
use votes::{Store, StoreError};

use crate::{
    dataset::Dataset,
    grammar::{Query, Row, Schema, Total},
};

/// Runs queries. A query store uses the same server as counting, with connections of its own.
#[async_trait]
pub trait QueryStore: Store {
    /// Returns a page of the matching rows.
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError>;
}

/// The table of a query.
#[derive(Clone, Debug)]
pub enum Table {
    /// The votes of the ledger.
    Votes,
    /// The rows of a dataset.
    Dataset(Arc<Dataset>),
}

impl Table {
    /// Returns the columns of the table.
    pub fn schema(&self) -> Schema {
        match self {
            Self::Votes => Schema::votes(),
            Self::Dataset(dataset) => Schema::dataset(&dataset.columns),
        }
    }
}

/// The result of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The query was run.
    Page(Page),
    /// The query was refused: the store would examine more rows than this number, and the query does not allow a scan.
    TooManyRows(usize),
}

/// A page of the matching rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The rows, in the order of the query.
    pub rows: Vec<Row>,
    /// The number of matching rows on all pages, if the query requests it.
    pub total: Option<Total>,
    /// Whether more rows follow the page.
    pub has_more: bool,
}
