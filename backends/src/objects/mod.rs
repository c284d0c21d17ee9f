//! Imported files, in a folder, on S3 or on Google Cloud Storage.
//!
//! | subject | file |
//! |---|---|
//! | the port | [`store`] |
//! | what a URL says, and what opens it | [`place`] |
//! | writing one object, in parts | [`writer`] |
//!
//! How long each call may take is decided here, whatever the store: a folder may be on a network, too.

mod place;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::{error::Error, fmt::Write, future::Future, time::Duration};

use tokio::time::timeout;
use votes::StoreError;

pub(crate) use place::Place;
pub(crate) use store::ObjectStorage;

/// What the port is called in errors.
const STORE: &str = "objects";

/// How long a call may take that carries no bytes of an object. One that is refused, or finds nobody, fails sooner.
const CALL: Duration = Duration::from_secs(10);

/// How long a call may take that carries bytes, 8 MiB or so.
const TRANSFER: Duration = Duration::from_secs(30);

/// How long a store may take to make one object of its parts, and a disk to have it for good.
const COMPLETION: Duration = Duration::from_mins(2);

/// What a call on an object came to, within its time.
async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    let late = |_| object_store::Error::Generic {
        store: STORE,
        source: format!("no answer within {} s", time.as_secs()).into(),
    };
    timeout(time, call).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// An error about an object, in the words of all that it came from.
fn failed(object: &str, error: &object_store::Error) -> StoreError {
    StoreError::new(STORE, format!("{object}: {}", in_full(error)))
}

/// An error with its causes, as far as it doesn't repeat them itself.
fn in_full(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            let _ = write!(words, ": {more}");
        }
        cause = error.source();
    }
    words
}
