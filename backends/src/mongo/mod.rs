//! The book, and datasets, on `MongoDB`.
//!
//! | file | what is there |
//! |---|---|
//! | [`connect`] | from a URL to a book: time-outs, indexes, what is refused |
//! | [`book`] | the port that counting needs |
//! | [`archive`] | people's questions |
//! | [`datasets`] | datasets |
//! | [`imports`] | what is known of imports |
//! | [`insert`] | many batches in one command |
//! | [`document`] | a vote as a document and back |
//! | [`summary`] | what expired votes came to |
//!
//! Counting writes with majority and journal, and reads from the primary what a majority has, whatever the URL says: the
//! place of a vote that a new primary could forget decides nothing.

mod archive;
mod book;
mod connect;
mod datasets;
mod document;
mod imports;
mod insert;
mod summary;
#[cfg(test)]
mod tests;

use std::{future::Future, time::Duration};

use mongodb::error::{Error, ErrorKind};
use tokio::time::timeout;
use votes::StoreError;

pub(crate) use archive::{DirectArchive, MongoArchive, Place};
pub(crate) use book::MongoBook;
pub(crate) use datasets::MongoDatasets;
pub(crate) use imports::MongoImports;

/// How long any call may take. The driver itself waits for ever for an answer from a server that hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// What the book is called in errors.
const STORE: &str = "book";

/// A call of a port: bounded in time, its error in words.
async fn bounded<T>(store: &'static str, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::new(store, format_args!("no answer within {} s", PATIENCE.as_secs())));
    timeout(PATIENCE, call).await.unwrap_or_else(late)
}

fn failed(problem: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, problem)
}

/// What the driver's error says, without the labels by which the driver talks to itself.
fn problem(error: &Error) -> String {
    const LABELS: &str = ", labels: {";
    const END: &str = ", server response: None";

    let mut text = match &*error.kind {
        ErrorKind::Io(broken) => format!("the connection to the server broke: {broken}"),
        kind => kind.to_string(),
    };
    while let Some(start) = text.find(LABELS)
        && let Some(length) = text[start..].find(END)
    {
        text.replace_range(start..start + length + END.len(), "");
    }
    text
}
