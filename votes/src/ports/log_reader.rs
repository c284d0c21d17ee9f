//! The port through which consumers and the audit read votes.

use async_trait::async_trait;

use super::store::{Store, StoreError};
use crate::{
    ids::{LogPosition, Offset, Partition, UnixMillis},
    retention::Retention,
    vote::Vote,
};

/// The reading end of the vote log.
///
/// Don't rely on the offsets that the log stores for a consumer: [`commit`](Self::commit) exists only for metrics of
/// the lag. [Seek](Self::seek) to the position that the ledger and the tallies have.
#[async_trait]
pub trait LogReader: Store {
    /// Returns the number of partitions of the log.
    fn partitions(&self) -> u16;

    /// Waits for the next change of the partitions that this consumer may read.
    async fn assignment(&self) -> Result<Assignment, StoreError>;

    /// Reports that this consumer no longer counts a partition: its task has ended. After the log has revoked a partition,
    /// it waits for this report, for a bounded time, before another consumer gets the partition. A log with only one
    /// consumer has nothing to wait for.
    async fn release(&self, partition: Partition) {
        let _ = partition;
    }

    /// Returns the first offset that the log still has, and the offset of the next record.
    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError>;

    /// Sets the offset from which the next batch is read.
    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError>;

    /// Waits for at least one record. Then waits for more records, up to `max_records`, for at most the linger time of
    /// the log reader.
    ///
    /// Batches are contiguous: the next batch begins at the offset where this batch ended. If the log has offsets
    /// without a record at its end, a batch without records ends behind them. If the future is dropped, nothing was
    /// read. For a revoked partition, the future may wait forever.
    async fn next_batch(&self, partition: Partition, max_records: usize) -> Result<Batch, StoreError>;

    /// Reports to the log how far the partition is counted. The report is for metrics only.
    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError>;

    /// Deletes the oldest records of these partitions, as the retention requires at the time `now`, but no record at or
    /// after the offset that is given for its partition: up to there the partition is counted. Returns the number of
    /// deleted records.
    async fn expire(
        &self,
        counted: &[(Partition, Offset)],
        retention: Retention,
        now: UnixMillis,
    ) -> Result<u64, StoreError>;

    /// Stores invalid records as dead letters, where operators find them. Any record that the log can have can be
    /// stored: a store may cut a large record, and then the dead letter has its beginning. Storing a record again
    /// changes nothing: a dead letter is identified by its position, and [`dead_letters`](Self::dead_letters) returns
    /// it once.
    async fn send_to_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError>;

    /// Opens a reader of the dead letters of a partition. It reads every dead letter that was stored before this call.
    async fn dead_letters(&self, partition: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError>;
}

/// A change in the partitions that a consumer may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// This consumer may read these partitions from now on.
    Assigned(Vec<Partition>),
    /// This consumer must no longer read these partitions.
    Revoked(Vec<Partition>),
}

/// The offsets that the log has of a partition: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub start: Offset,
    /// The offset of the next record.
    pub end: Offset,
}

/// The records `[from, to)` of one partition, sorted by offset. A log may have gaps, so a batch may have fewer records
/// than offsets.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The partition.
    pub partition: Partition,
    /// The offset at which the previous batch ended, or the offset of the seek.
    pub from: Offset,
    /// The offset at which the next batch begins.
    pub to: Offset,
    /// The records.
    pub records: Vec<Record>,
}

impl Batch {
    /// Returns the dead letters for the batch's invalid records.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letter = |record: &Record| {
            let position = LogPosition { partition: self.partition, offset: record.offset };
            let invalid = record.vote.as_ref().err()?.clone();
            Some(DeadLetter::whole(position, record.accepted_at, invalid))
        };
        self.records.iter().filter_map(letter).collect()
    }
}

/// A record of the log.
#[derive(Clone, Debug)]
pub struct Record {
    /// The offset of the record.
    pub offset: Offset,
    /// The time of the record.
    pub accepted_at: UnixMillis,
    /// The vote, or the content of an invalid record.
    pub vote: Result<Vote, InvalidRecord>,
}

/// A record that can't be read as a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRecord {
    /// Why the record can't be read.
    pub reason: String,
    /// The record's key, unchanged.
    pub key: Vec<u8>,
    /// The record's value, unchanged.
    pub value: Vec<u8>,
}

/// An invalid record, stored apart with its position and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record's position on the log.
    pub position: LogPosition,
    /// The record's time.
    pub accepted_at: UnixMillis,
    /// The record. If `is_truncated`, it has only the first bytes of the key or of the value.
    pub invalid: InvalidRecord,
    /// The number of bytes of the value on the log.
    pub size: u64,
    /// Whether the store has cut the key or the value.
    pub is_truncated: bool,
}

impl DeadLetter {
    /// Returns the dead letter of a whole record.
    pub fn whole(position: LogPosition, accepted_at: UnixMillis, invalid: InvalidRecord) -> Self {
        let size = invalid.value.len() as u64;
        Self { position, accepted_at, invalid, size, is_truncated: false }
    }
}

/// Reads the dead letters of one partition in parts, so that they need not be in memory together. A reader may need
/// memory for the offsets of all dead letters of the partition.
#[async_trait]
pub trait DeadLetterReader: Send {
    /// Returns the next dead letters in the order in which they were stored, each position once. This is the order of
    /// their offsets, unless an earlier record was stored later. Returns `None` at the end. After an error, open another
    /// reader.
    async fn next_part(&mut self) -> Result<Option<DeadLetterPart>, StoreError>;
}

/// A reader of dead letters that are in memory. It returns them as one part.
#[async_trait]
impl DeadLetterReader for Option<DeadLetterPart> {
    async fn next_part(&mut self) -> Result<Option<DeadLetterPart>, StoreError> {
        Ok(self.take())
    }
}

/// Some of the dead letters of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetterPart {
    /// The dead letters.
    pub letters: Vec<DeadLetter>,
    /// The records between them that are no dead letters. The reader skipped them.
    pub foreign: Vec<ForeignRecord>,
}

/// A record among the dead letters that is no dead letter, because another program wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRecord {
    /// The partition of the dead letters.
    pub partition: Partition,
    /// Where the record is among the dead letters. This is no offset of the vote log.
    pub offset: Offset,
    /// Why the record is no dead letter.
    pub problem: String,
}
