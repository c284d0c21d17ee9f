//! Lets callers wait for a new version of the tallies.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use redis::RedisResult;
use tokio::{
    select,
    sync::{Mutex, watch},
    time::sleep,
};

/// The time between two requests for the version. It does not depend on how many callers wait.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Lets many callers wait for a new version, while only one of them polls the server.
///
/// There is no separate task: the caller that holds the lock polls for all callers. When this caller has its version,
/// fails or is dropped, another caller gets the lock.
pub(super) struct VersionWatch {
    poller_lock: Mutex<()>,
    observed: watch::Sender<Observed>,
}

/// A version that the server returned.
#[derive(Clone, Copy)]
struct Observed {
    version: u64,
    /// When the version was requested.
    requested_at: Instant,
}

impl VersionWatch {
    pub(super) fn new() -> Self {
        let none_yet = Observed { version: 0, requested_at: Instant::now() };
        Self { poller_lock: Mutex::default(), observed: watch::Sender::new(none_yet) }
    }

    /// Waits until the version is not `seen`. `request` reads the version from the server.
    ///
    /// # Errors
    /// Returns the error of `request` to the caller that polls. The other callers continue to wait.
    pub(super) async fn wait<F: Future<Output = RedisResult<u64>>>(
        &self,
        seen: u64,
        request: impl Fn() -> F,
    ) -> RedisResult<u64> {
        let began = Instant::now();
        let mut observed = self.observed.subscribe();
        // A version that was requested before this call may be older than the version that the caller has seen.
        let is_new = |observed: &Observed| observed.requested_at >= began && observed.version != seen;
        select! {
            // Check the observed version first: a caller that already has a new version must not poll.
            biased;
            Ok(observed) = observed.wait_for(is_new) => Ok(observed.version),
            version = self.poll_until_changed(seen, request) => version,
        }
    }

    /// Polls the server until the version is not `seen`, when no other caller polls.
    async fn poll_until_changed<F: Future<Output = RedisResult<u64>>>(
        &self,
        seen: u64,
        request: impl Fn() -> F,
    ) -> RedisResult<u64> {
        let _poller = self.poller_lock.lock().await;
        loop {
            let requested_at = Instant::now();
            let version = request().await?;
            self.observed.send_replace(Observed { version, requested_at });
            if version != seen {
                return Ok(version);
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}
