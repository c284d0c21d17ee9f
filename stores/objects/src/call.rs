//! The time-outs of calls of the object store, and the text of their errors.

use std::{error::Error, fmt::Write, future::Future, time::Duration};

use tokio::time::timeout;
use votes::StoreError;

/// The name of the port in errors.
pub(crate) const STORE: &str = "objects";

/// The longest time that a call may take that transfers no bytes of an object. If the connection is refused, the call
/// fails sooner.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time that a call may take that transfers bytes of an object, usually a few MiB.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time that a cloud may take to assemble an object from its parts, or that a disk may take to sync it.
pub(crate) const COMPLETION_TIMEOUT: Duration = Duration::from_mins(2);

/// Runs a call, and fails if it takes longer than `time`.
pub(crate) async fn with_timeout<T>(
    time: Duration,
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    let timed_out = |_| object_store::Error::Generic {
        store: STORE,
        source: format!("no response within {} s", time.as_secs()).into(),
    };
    timeout(time, call).await.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
}

/// Converts an error about an object, with all causes of the error.
pub(crate) fn failed(object: &str, error: &object_store::Error) -> StoreError {
    StoreError::new(STORE, format!("{object}: {}", error_chain(error)))
}

/// Returns the text of an error and of its causes, without causes that the text already contains.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        cause = error.source();
    }
    text
}
