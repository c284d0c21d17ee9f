//! What holds partitions up, for `/health` and the operator.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use votes::Partition;

/// The trouble of each partition that has some.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<Mutex<BTreeMap<Partition, String>>>);

impl States {
    pub(crate) fn trouble(&self, partition: Partition, problem: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, problem);
    }

    pub(crate) fn forget(&self, partition: Partition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    /// The first partition's trouble, and how many have some.
    pub(crate) fn problem(&self) -> Option<String> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.values().next().map(|first| match states.len() {
            1 => first.clone(),
            count => format!("{count} partitions are not counted; the first: {first}"),
        })
    }
}
