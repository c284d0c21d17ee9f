//! Where consumers and the audit read votes.

use async_trait::async_trait;

use super::Store;
use crate::{Offset, Partition, Place, Retention, StoreError, UnixMillis, Vote};

/// The reading end of the vote log.
///
/// The feed keeps no position of its own that anyone may trust: a reader [seeks](Self::seek) to where its *stores* say
/// that counting has come, and [`commit`](Self::commit) exists for lag metrics only.
#[async_trait]
pub trait VoteFeed: Store {
    /// How many partitions the log has.
    fn partitions(&self) -> u16;

    /// Waits for the next change of what this consumer may read.
    async fn assignment(&self) -> Result<Assignment, StoreError>;

    /// The first offset that the log still has, and the one that the next record will get.
    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError>;

    /// Makes `at` the offset from which the next batch is read.
    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError>;

    /// Waits for at least one record, and for more of them as long as the feed's linger allows, up to `most`.
    /// Consecutive batches join: the next one begins where this one ended. If the future is dropped, nothing was read.
    /// Of a partition that was revoked nothing may come any more, for ever.
    async fn next_batch(&self, partition: Partition, most: usize) -> Result<Batch, StoreError>;

    /// Tells the log how far counting has come.
    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError>;

    /// Lets go of the partition's oldest records, as far as the retention says and never of one at or after `counted`. Returns
    /// how many it let go.
    async fn expire(&self, partition: Partition, retention: Retention, counted: Offset) -> Result<u64, StoreError>;

    /// Puts records that can't be read where operators find them. Doing it twice is doing it once.
    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError>;

    /// The dead letters of `partition` with offsets in `[from, to)`, by offset.
    async fn dead(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<DeadLetter>, StoreError>;
}

/// A change of what a consumer may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// These partitions are this consumer's from now on.
    Assigned(Vec<Partition>),
    /// These are no longer.
    Revoked(Vec<Partition>),
}

/// What the log has of a partition: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub start: Offset,
    /// The offset that the next record will get.
    pub end: Offset,
}

/// Records `[from, to)` of one partition, by offset. A log may have gaps, so a batch may have fewer.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// Where the previous batch ended, or the seek.
    pub from: Offset,
    /// Where the next batch begins.
    pub to: Offset,
    /// The records.
    pub records: Vec<Record>,
}

impl Batch {
    /// The letters of its poison messages.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letter = |record: &Record| {
            let place = Place { partition: self.partition, offset: record.offset };
            let poison = record.vote.as_ref().err()?.clone();
            Some(DeadLetter { place, accepted_at: record.accepted_at, poison })
        };
        self.records.iter().filter_map(letter).collect()
    }
}

/// One record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its offset.
    pub offset: Offset,
    /// Its time.
    pub accepted_at: UnixMillis,
    /// The vote, or what is there instead of one.
    pub vote: Result<Vote, Poison>,
}

/// A record that can't be read as a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// Why it can't be read.
    pub reason: String,
    /// The record's key, as it is.
    pub key: Vec<u8>,
    /// The record's value, as it is.
    pub value: Vec<u8>,
}

/// A poison message that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it is on the log.
    pub place: Place,
    /// The record's time.
    pub accepted_at: UnixMillis,
    /// What it is.
    pub poison: Poison,
}
