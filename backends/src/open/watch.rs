//! A port as `/health` shows it: waited for, open, or why it is not.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use service::{Health, health::Weight, program::Failure};
use tokio::time::{Instant, sleep};
use votes::{
    Answers, Archive, Book, ChunkQueue, Datasets, Imports, Objects, Store, StoreError, Tallies, VoteFeed, VoteQueue,
};

use super::error::NotOpen;

/// How often a server that can't be reached is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What `/health` asks about a port: the open store, or why it is not open.
pub(super) struct Watch {
    name: &'static str,
    state: State,
}

/// The store is not kept open by being watched: a feed that its consumer drops leaves the group at once.
type State = Arc<Mutex<Result<Weak<dyn Store>, String>>>;

impl Watch {
    /// Shows a port at `/health`, from before it is open.
    pub(super) fn new(health: &Health, name: &'static str, weight: Weight) -> Self {
        let state: State = Arc::new(Mutex::new(Err("not opened yet".to_owned())));
        let shown = Arc::clone(&state);
        health.check(name, weight, move || {
            let store = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                let store = store?.upgrade().ok_or("closed")?;
                store.check().await.map_err(|error: StoreError| error.to_string())
            }
        });
        Self { name, state }
    }

    fn show(&self, state: Result<Weak<dyn Store>, String>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn opened<P: Port + ?Sized>(&self, port: Arc<P>) -> Arc<P> {
        self.show(Ok(Arc::downgrade(&P::as_store(Arc::clone(&port)))));
        port
    }

    /// Opens a port on a server that may not be up yet. `key` is the configuration's key of its URL.
    pub(super) async fn reach<P: Port + ?Sized, F: Future<Output = Result<Arc<P>, NotOpen>>>(
        &self,
        key: &'static str,
        patience: Option<Duration>,
        open: impl Fn() -> F,
    ) -> Result<Arc<P>, Failure> {
        Ok(self.opened(self.reach_any(key, patience, open).await?))
    }

    /// As [`reach`](Self::reach), of what is no port, or several.
    pub(super) async fn reach_any<P, F: Future<Output = Result<P, NotOpen>>>(
        &self,
        key: &'static str,
        patience: Option<Duration>,
        open: impl Fn() -> F,
    ) -> Result<P, Failure> {
        let begun = Instant::now();
        let mut told = None;
        loop {
            let problem = match open().await {
                Ok(port) => return Ok(port),
                Err(NotOpen::Unreachable(problem)) if patience.is_none_or(|patience| begun.elapsed() < patience) => {
                    problem
                }
                Err(error) => return Err(error.told(key, self.name)),
            };
            if told.as_ref() != Some(&problem) {
                tracing::warn!(store = self.name, problem, "waiting for a store");
                told = Some(problem.clone());
            }
            self.show(Err(problem));
            sleep(TRY_AGAIN).await;
        }
    }
}

/// A port, as what all ports have in common.
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

ports!(VoteQueue VoteFeed Book Tallies Archive Datasets Answers Imports ChunkQueue Objects);
