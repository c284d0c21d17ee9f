//! The archive: the votes of the book and the rows of datasets, as people ask for them.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Dataset, Store};
use crate::{
    StoreError,
    query::{Query, Row, Schema, Total},
};

/// What answers people's questions. It shares nothing with counting but the server.
#[async_trait]
pub trait Archive: Store {
    /// A page of the rows that match.
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError>;
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Table {
    /// The votes of the book.
    Votes,
    /// A dataset's rows.
    Dataset(Arc<Dataset>),
}

impl Table {
    /// Its columns.
    pub fn schema(&self) -> Schema {
        match self {
            Self::Votes => Schema::votes(),
            Self::Dataset(dataset) => Schema::dataset(&dataset.columns),
        }
    }
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Its answer.
    Page(Page),
    /// More rows than this would have to be looked at, and the question does not allow that.
    TooMuch(usize),
}

/// Some of the rows that match.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// In the question's order.
    pub rows: Vec<Row>,
    /// How many there are on all pages, if that was asked.
    pub total: Option<Total>,
    /// Whether rows come after these.
    pub has_more: bool,
}
