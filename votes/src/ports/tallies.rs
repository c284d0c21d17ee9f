//! The tallies have the current number of votes of each band.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::store::{Store, StoreError};
use crate::{
    counts::{ContestCounts, Counts, Window},
    ids::{ContestId, Offset, Partition, UnixMillis, VoteId},
    tally::{AlbumVotes, RateWindow, Tally},
};

/// The tallies. They have a position T in each partition of the log. The counts and T change together, in one step.
#[async_trait]
pub trait Tallies: Store {
    /// Returns how far the tallies have counted a partition: [`TalliesPosition::default`] if they have counted nothing
    /// of it.
    async fn position(&self, partition: Partition) -> Result<TalliesPosition, StoreError>;

    /// Adds the counts and sets T to `to.offset` in one step, if T is exactly `from`. Otherwise changes nothing. If `to`
    /// has no last vote, the position keeps the last vote that it had.
    ///
    /// The step is atomic however many names the counts have.
    async fn add(
        &self,
        partition: Partition,
        from: Offset,
        to: TalliesPosition,
        counts: Counts,
    ) -> Result<Added, StoreError>;

    /// Announces that the tallies had the votes of a partition below `to` before, and that these votes are being added
    /// again. Until T of the partition is `to` or more, [`Tally::recounting`] is true.
    async fn announce_recount(&self, partition: Partition, to: Offset) -> Result<(), StoreError>;

    /// Returns the tally of one contest, with its `top` leading bands.
    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError>;

    /// Returns the `top` leading albums of a contest.
    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError>;

    /// Returns the windows of acceptance time that begin in `[from, to)`, with their numbers of votes, sorted by time.
    /// Windows without votes are omitted. Without a `contest`, the numbers include the votes of all contests.
    async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError>;

    /// Returns all positions and counts at one instant, for the audit.
    async fn snapshot(&self) -> Result<Snapshot, StoreError>;

    /// Waits until the version of the tallies is not `version`. Returns the new version.
    async fn changed(&self, version: u64) -> Result<u64, StoreError>;

    /// Deletes all counts and positions in one step, and raises the version, if `condition` holds. Otherwise changes
    /// nothing. Returns whether the tallies were cleared. The next addition of each consumer is then fenced, so the
    /// consumers rebuild the tallies from the ledger.
    async fn clear(&self, condition: ClearCondition) -> Result<bool, StoreError>;
}

/// How far the tallies have counted a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TalliesPosition {
    /// T: the first offset that is not in the tallies yet.
    pub offset: Offset,
    /// A record below T that is a vote: the last vote of the last addition that had votes. This record identifies the
    /// log that the tallies are of. `None` if no addition named such a vote.
    pub last: Option<(Offset, VoteId)>,
}

impl From<Offset> for TalliesPosition {
    /// Returns the position without a last vote.
    fn from(offset: Offset) -> Self {
        Self { offset, last: None }
    }
}

/// When to clear the tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClearCondition {
    /// Always. This is for an operator.
    Always,
    /// Only if T of this partition is exactly this offset. A consumer that can't continue from this T clears with this
    /// condition. If several partitions find the same loss, the first of them clears the tallies. This sets every T to
    /// 0, so the others clear nothing, and what was counted again meanwhile stays.
    IfAt(Partition, Offset),
}

/// The result of adding a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The counts and T changed together.
    Added,
    /// T is not `from`, so nothing changed. The value is T.
    Fenced(Offset),
}

/// All counts and positions at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// T of each partition of which the tallies have votes.
    pub positions: BTreeMap<Partition, Offset>,
    /// The counts of each contest. Only the windows that never expire are complete.
    pub contests: BTreeMap<ContestId, ContestCounts>,
}
