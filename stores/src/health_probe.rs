//! The health check of a port, and the wait for its server.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use query::{ChunkQueue, Datasets, Imports, Objects, QueryStore, ResponseCache};
use service::{
    health::{Criticality, Health},
    program::Failure,
};
use tokio::time::{Instant, sleep};
use votes::{ConnectError, LogReader, LogWriter, Store, StoreError, Tallies, WholeLedger};

use crate::error::failure;

/// The time between two attempts to open a store on a server that is not reachable.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The health check of a port. The check asks the open store, or reports why the store is not open.
pub(super) struct HealthProbe {
    name: &'static str,
    state: State,
}

/// The open store, or the reason why it is not open. The reference is weak, so that the health check does not keep the
/// store open: a dropped log reader must leave its group at once.
type State = Arc<Mutex<Result<Weak<dyn Store>, String>>>;

impl HealthProbe {
    /// Registers the health check of a port that is not open yet. If a check of this name exists, `/health` continues
    /// to show that check, and this probe only retries.
    pub(super) fn new(health: &Health, name: &'static str, criticality: Criticality) -> Self {
        let state: State = Arc::new(Mutex::new(Err("not opened yet".to_owned())));
        let checked_state = Arc::clone(&state);
        health.add_check(name, criticality, move || {
            let store = checked_state.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                let store = store?.upgrade().ok_or("closed")?;
                store.check().await.map_err(|error: StoreError| error.to_string())
            }
        });
        Self { name, state }
    }

    fn set_state(&self, state: Result<Weak<dyn Store>, String>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Shows the open port at `/health`, and returns it.
    pub(super) fn show_at_health<P: Port + ?Sized>(&self, port: Arc<P>) -> Arc<P> {
        self.set_state(Ok(Arc::downgrade(&P::as_store(Arc::clone(&port)))));
        port
    }

    /// Opens a port and shows it at `/health`. While the server is not reachable, tries again until `open_timeout` has
    /// passed, or without end if it is `None`. `key` is the configuration key of the URL.
    pub(super) async fn open_port<P: Port + ?Sized, F: Future<Output = Result<Arc<P>, ConnectError>>>(
        &self,
        key: &'static str,
        open_timeout: Option<Duration>,
        open: impl Fn() -> F,
    ) -> Result<Arc<P>, Failure> {
        Ok(self.show_at_health(self.open_with_retry(key, open_timeout, open).await?))
    }

    /// Opens a value that contains several ports, with the retries of [`open_port`](Self::open_port). The caller must
    /// call [`show_at_health`](Self::show_at_health) for a port of this value.
    pub(super) async fn open_with_retry<P, F: Future<Output = Result<P, ConnectError>>>(
        &self,
        key: &'static str,
        open_timeout: Option<Duration>,
        open: impl Fn() -> F,
    ) -> Result<P, Failure> {
        let begun = Instant::now();
        let mut logged = None;
        loop {
            let problem = match open().await {
                Ok(port) => return Ok(port),
                Err(ConnectError::Unreachable(problem))
                    if open_timeout.is_none_or(|open_timeout| begun.elapsed() < open_timeout) =>
                {
                    problem
                }
                Err(error) => return Err(failure(error, key, self.name)),
            };
            if logged.as_ref() != Some(&problem) {
                tracing::warn!(store = self.name, problem, "waiting for a store");
                logged = Some(problem.clone());
            }
            self.set_state(Err(problem));
            sleep(RETRY_DELAY).await;
        }
    }
}

/// The conversion of a port to the trait of all stores.
pub(super) trait Port {
    fn as_store(port: Arc<Self>) -> Arc<dyn Store>;
}

macro_rules! ports {
    ($($port:ident)*) => {$(
        impl Port for dyn $port {
            fn as_store(port: Arc<Self>) -> Arc<dyn Store> {
                port
            }
        }
    )*};
}

ports!(LogWriter LogReader WholeLedger Tallies QueryStore Datasets ResponseCache Imports ChunkQueue Objects);
