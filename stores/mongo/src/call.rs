//! The time-out of calls of the driver, the text of their errors, and the numbers in their replies.

use std::{future::Future, time::Duration};

use mongodb::{
    bson::{Bson, Document},
    error::{Error, ErrorKind, WriteFailure},
};
use tokio::time::timeout;
use votes::StoreError;

/// The longest time that [`with_timeout`] lets a call take. Without it, the driver would wait without end if a server
/// hangs.
pub(crate) const MONGO_OPERATION_TIMEOUT: Duration = Duration::from_secs(8);

/// The name of the ledger in errors.
pub(crate) const STORE: &str = "ledger";

/// Runs a call, and fails if it takes longer than [`MONGO_OPERATION_TIMEOUT`]. The server may still run the call then.
pub(crate) async fn with_timeout<T>(
    store: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let timed_out =
        |_| Err(StoreError::new(store, format_args!("no response within {} s", MONGO_OPERATION_TIMEOUT.as_secs())));
    timeout(MONGO_OPERATION_TIMEOUT, call).await.unwrap_or_else(timed_out)
}

pub(crate) fn failed(problem: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, problem)
}

/// Returns the text of an error of the driver, without the labels that only the driver uses.
pub(crate) fn error_text(error: &Error) -> String {
    const LABELS_START: &str = ", labels: {";
    const LABELS_END: &str = ", server response: None";

    let mut text = match &*error.kind {
        ErrorKind::Io(broken) => format!("the connection to the server broke: {broken}"),
        kind => kind.to_string(),
    };
    while let Some(start) = text.find(LABELS_START)
        && let Some(length) = text[start..].find(LABELS_END)
    {
        text.replace_range(start..start + length + LABELS_END.len(), "");
    }
    text
}

/// The server's error code for an `_id` that already exists.
pub(crate) const DUPLICATE_KEY: i32 = 11_000;

/// Returns whether the error means that a document with this `_id` already exists.
pub(crate) fn is_duplicate_key(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(refused)) => refused.code == DUPLICATE_KEY,
        ErrorKind::Command(refused) => refused.code == DUPLICATE_KEY,
        _ => false,
    }
}

/// Converts an error of the driver to an error of the ledger.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
pub(crate) fn driver_error(error: Error) -> StoreError {
    failed(error_text(&error))
}

/// Reads a whole number of a reply. The type of the number depends on the server.
pub(crate) fn reply_number(reply: &Document, field: &str) -> Result<i64, StoreError> {
    match reply.get(field) {
        Some(Bson::Int32(number)) => Ok((*number).into()),
        Some(Bson::Int64(number)) => Ok(*number),
        #[expect(clippy::cast_possible_truncation, reason = "a whole number")]
        Some(Bson::Double(number)) => Ok(*number as i64),
        other => Err(failed(format!("the server returned {other:?} as {field}"))),
    }
}
