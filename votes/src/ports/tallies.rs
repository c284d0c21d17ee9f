//! The tallies: how many votes each band has, now.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Store;
use crate::{
    AlbumVotes, ContestCounts, ContestId, Counts, Offset, Partition, RateWindow, StoreError, Tally, UnixMillis, Window,
};

/// The tallies, with a position T per partition of the log that moves with them in one step.
#[async_trait]
pub trait Tallies: Store {
    /// T: the first offset not yet in the tallies; 0 for a partition they have never seen.
    async fn position(&self, partition: Partition) -> Result<Offset, StoreError>;

    /// In one step: if T is exactly `from`, adds the counts and sets T to `to`; else changes nothing.
    async fn add(&self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Result<Added, StoreError>;

    /// One contest as people see it, with its `top` bands.
    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError>;

    /// The leading albums of a contest.
    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError>;

    /// Votes by window of acceptance time, for windows that begin in `[from, to)`, by time; only those that have any.
    /// Over all contests, or one.
    async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError>;

    /// Everything at one instant: what the audit compares.
    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Waits until the tallies' version is another than `seen`, and returns it.
    async fn changed(&self, seen: u64) -> Result<u64, StoreError>;

    /// Forgets everything, positions included, in one step, and raises the version. Consumers notice by being fenced, and
    /// count again from the book.
    async fn clear(&self) -> Result<(), StoreError>;
}

/// What became of adding a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Counts and position moved together.
    Added,
    /// T was another than `from`, and is this; nothing changed.
    Fenced(Offset),
}

/// All tallies and positions at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// T of each partition that has one.
    pub positions: BTreeMap<Partition, Offset>,
    /// The counts of each contest. Of the windows only those that never expire are complete.
    pub contests: BTreeMap<ContestId, ContestCounts>,
}
