//! The importer of files, and the stores that it needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use query::{Datasets, import::ImportId};
use stores::ImportPorts;
use tokio::sync::Notify;
use votes::{Ingest, UnixMillis};

/// Imports files: receives uploads, loads chunks and reconciles imports.
#[derive(Clone)]
pub(crate) struct Importer(pub(super) Arc<State>);

pub(super) struct State {
    pub(super) datasets: Arc<dyn Datasets>,
    pub(super) stores: ImportPorts,
    /// The ingest of rows that are votes.
    pub(super) ingest: Ingest,
    /// Wakes the reconciler after progress, because an import may be done.
    pub(super) progress: Notify,
    /// The time at which this process last loaded a chunk of an import. The reconciler removes old times.
    loaded_at: Mutex<HashMap<ImportId, UnixMillis>>,
}

impl Importer {
    pub(crate) fn new(datasets: Arc<dyn Datasets>, stores: ImportPorts, ingest: Ingest) -> Self {
        Self(Arc::new(State { datasets, stores, ingest, progress: Notify::new(), loaded_at: Mutex::default() }))
    }

    pub(super) fn loaded_at(&self) -> MutexGuard<'_, HashMap<ImportId, UnixMillis>> {
        self.0.loaded_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of a file in the object store.
pub(super) fn object_name(import: ImportId) -> String {
    format!("imports/{import}.csv")
}
