//! The ledger stores every counted vote once, with its time and its position on the log.
//!
//! Counting, retention and an operator need different parts of the ledger. Each part is a trait.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::store::{Store, StoreError};
use crate::{
    counts::Counts,
    ids::{BallotKey, LogPosition, Offset, Partition, VoteId},
    vote::LoggedVote,
};

/// The part of the ledger that counting and the audit need. The ledger has a position B in each partition of the log.
#[async_trait]
pub trait Ledger: Store {
    /// Returns how far the ledger has recorded a partition: [`Checkpoint::default`] if it has recorded no batch of it.
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError>;

    /// Stores durably the votes whose ballot key is not in the ledger yet. Returns the indexes of the other votes.
    ///
    /// A returned index does not mean that the vote is a duplicate: after a crash, the stored vote may be the same
    /// record. Call [`positions_of`](Self::positions_of) to distinguish the two cases.
    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError>;

    /// Returns the position of the original of each ballot key, or `None` if the ledger does not have the key.
    async fn positions_of(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<LogPosition>>, StoreError>;

    /// Records duplicates of one partition, and marks their originals, so that no original is purged before its last
    /// recorded duplicate has expired, too. Recording a duplicate again changes nothing.
    ///
    /// Returns `false` if an original is not in the ledger at its position: it was purged after the caller had read its
    /// position. Such a record is no duplicate any more, so the caller must look the ballots up again.
    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<bool, StoreError>;

    /// Returns the recorded duplicates with offsets in `[from, to)`, sorted by offset.
    async fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Duplicate>, StoreError>;

    /// Raises B to `checkpoint.offset` if `from <= B < checkpoint.offset` and the cut-off is `checkpoint.cut_off`.
    /// Never lowers B.
    async fn advance_checkpoint(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError>;

    /// Returns the first votes with offsets in `[from, to)`, at most `limit`, sorted by offset.
    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        limit: usize,
    ) -> Result<Vec<LoggedVote>, StoreError>;

    /// Returns the counts of the partition's expired votes.
    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError>;
}

/// The part of the ledger that retention needs, in addition to [`Ledger`].
#[async_trait]
pub trait LedgerRetention: Ledger {
    /// Adds the counts of votes that expire now to the partition's summary, and raises the cut-off from `from` to
    /// `expired.cut_off`, in one step, if the cut-off is exactly `from`. Returns whether it did. `expired` has only the
    /// votes in `[from, expired.cut_off)`, so the work depends on what expires, and not on the history.
    async fn add_to_summary(&self, partition: Partition, from: Offset, expired: Summary) -> Result<bool, StoreError>;

    /// Merges what [`add_to_summary`](Self::add_to_summary) stores apart, if there is enough of it. The counts do not
    /// change. This may take long, and may be dropped at any time. Call it beside counting.
    async fn compact_summary(&self, partition: Partition) -> Result<(), StoreError> {
        let _ = partition;
        Ok(())
    }

    /// Deletes what a process has left that ended while it added to the partition's summary. The counts do not change.
    async fn clean_summary(&self, partition: Partition) -> Result<(), StoreError> {
        let _ = partition;
        Ok(())
    }

    /// Deletes these votes of the partition as far as they are below the cut-off, and the oldest recorded duplicates below
    /// the cut-off, at most `max_duplicates`.
    ///
    /// A vote is not deleted while a recorded duplicate of the vote is at or after the cut-off: the vote identifies the
    /// duplicate. It is deleted together with its last recorded duplicate.
    async fn purge_expired(
        &self,
        partition: Partition,
        votes: Vec<(BallotKey, Offset)>,
        max_duplicates: usize,
    ) -> Result<Purged, StoreError>;

    /// Returns the approximate size of the votes of all partitions, in bytes.
    async fn size(&self) -> Result<u64, StoreError>;
}

/// The part of the ledger that an operator needs for a repair.
#[async_trait]
pub trait LedgerRepair: Store {
    /// Sets B to `to` and clears the last vote. The consumers then record the log again from `to` on. This is for an
    /// operator whose ledger lost votes. No consumer may run, because a running consumer would continue from its own
    /// cursor.
    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError>;
}

/// A ledger with all three parts. Every adapter implements them.
pub trait WholeLedger: LedgerRetention + LedgerRepair {}

impl<L: LedgerRetention + LedgerRepair> WholeLedger for L {}

/// How far the ledger has recorded a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// B: the first offset that is not recorded yet.
    pub offset: Offset,
    /// The last record below B that is a vote. This record identifies the log: a log that was created again has another
    /// record at this offset.
    pub last: Option<(Offset, VoteId)>,
    /// The votes below this offset have expired. The partition's [`Summary`] has their counts, and documents below this
    /// offset no longer count.
    pub cut_off: Offset,
}

/// The counts of a partition's expired votes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The summary counts the votes below this offset.
    pub cut_off: Offset,
    /// The counts of these votes, with only the windows that never expire.
    pub counts: Counts,
    /// The youngest age at which a vote of the partition expired, on the log: the time between the vote and the next
    /// vote that was to be counted, less the errors of these times. `None` if no vote has expired, or if their ages are not known.
    pub youngest_expired: Option<Duration>,
}

impl Summary {
    /// Adds the counts of votes that expired later.
    pub fn add(&mut self, later: Self) {
        self.cut_off = later.cut_off;
        self.counts.merge(later.counts);
        self.youngest_expired = [self.youngest_expired, later.youngest_expired].into_iter().flatten().min();
    }
}

/// What [`LedgerRetention::purge_expired`] has deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// The number of deleted votes.
    pub votes: u64,
    /// Whether no duplicate is left below the cut-off.
    pub is_done: bool,
}

/// A record that repeats a ballot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    /// The position of the duplicate.
    pub position: LogPosition,
    /// The ballot.
    pub key: BallotKey,
    /// The offset, in the same partition, of the original: the vote that counts for the ballot.
    pub original: Offset,
}

/// The result of raising B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// B is the new offset, or was already at or above it.
    Done,
    /// B is below `from`, so the ledger has a hole between B and `from`. The value is B.
    Hole(Offset),
    /// The cut-off has moved. The value is the current cut-off. The original of a vote that was found to be a duplicate
    /// may have expired.
    CutOffMoved(Offset),
}
