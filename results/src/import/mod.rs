//! Files: stored, cut into chunks, and loaded.
//!
//! | idea | file |
//! |---|---|
//! | a file comes in: to the object store, and cut while it does | `intake.rs` |
//! | a chunk becomes rows of a dataset, or votes | `worker.rs` |
//! | an import that nobody works on is taken up again, and one that is done ends | `tending.rs` |
//! | `POST /v1/datasets`, `POST /v1/votes/import`, `GET /v1/imports/{id}` | `routes.rs` |
//!
//! Every process that serves results takes files and loads chunks of all of them. Whatever is done twice is done once: rows have the
//! numbers of the file, and votes ids that the file and these decide.

mod intake;
pub(crate) mod routes;
mod tending;
mod worker;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backends::Importing;
use tokio::sync::Notify;
use votes::{Datasets, Door, StoreError, UnixMillis, import::ImportId};

/// How long is waited after a store has failed: twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What imports files.
#[derive(Clone)]
pub(crate) struct Importer(Arc<Shared>);

struct Shared {
    /// Where rows become datasets.
    datasets: Arc<dyn Datasets>,
    stores: Importing,
    /// The way of rows that are votes.
    door: Door,
    /// Something was done: an import may have ended.
    progress: Notify,
    /// When this process last loaded a chunk of an import, if that was a short time ago.
    loaded_at: Mutex<HashMap<ImportId, UnixMillis>>,
}

impl Importer {
    pub(crate) fn new(datasets: Arc<dyn Datasets>, stores: Importing, door: Door) -> Self {
        worker::describe_metrics();
        Self(Arc::new(Shared { datasets, stores, door, progress: Notify::new(), loaded_at: Mutex::default() }))
    }

    fn loaded_at(&self) -> MutexGuard<'_, HashMap<ImportId, UnixMillis>> {
        self.0.loaded_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a file is called in the object store.
fn object(import: ImportId) -> String {
    format!("imports/{import}.csv")
}

/// Pauses that grow while a store fails, with one line in the log when it begins to.
#[derive(Default)]
struct Patience {
    pause: Option<Duration>,
}

impl Patience {
    async fn wait(&mut self, error: &StoreError) {
        let pause = match self.pause {
            None => {
                tracing::warn!(store = error.store, error = %error.problem, "importing waits for a store");
                FIRST_PAUSE
            }
            Some(pause) => (pause * 2).min(LONGEST_PAUSE),
        };
        self.pause = Some(pause);
        tokio::time::sleep(pause).await;
    }

    fn restore(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!("importing goes on");
        }
    }
}
