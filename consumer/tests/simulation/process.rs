//! A process with its connections to all stores.

use std::sync::{Arc, MutexGuard};

use async_trait::async_trait;
use votes::{HealthDetails, LedgerRetention, Store, StoreError, Tallies, WholeLedger};

use crate::world::{ProcessKind, ProcessState, SharedWorld, World};

/// A process, with its connections to all stores. It implements each port, in the files [`crate::ledger`],
/// [`crate::tallies`] and [`crate::reader`].
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) id: usize,
    world: SharedWorld,
}

impl Process {
    /// Starts a process.
    pub(crate) fn new(world: &SharedWorld, kind: ProcessKind) -> Self {
        let mut state = world.lock();
        let has_many_votes = state.has_many_votes;
        state.processes.push(ProcessState::new(kind, has_many_votes));
        let id = state.processes.len() - 1;
        drop(state);
        Self { id, world: world.clone() }
    }

    pub(crate) fn ledger(&self) -> Arc<dyn WholeLedger> {
        Arc::new(self.clone())
    }

    pub(crate) fn ledger_retention(&self) -> Arc<dyn LedgerRetention> {
        Arc::new(self.clone())
    }

    pub(crate) fn tallies(&self) -> Arc<dyn Tallies> {
        Arc::new(self.clone())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }
}

#[async_trait]
impl Store for Process {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        Ok(HealthDetails::new())
    }
}
