//! The vote book: every counted vote, once, with its time and its place on the log. People ask it through the
//! [`Archive`](super::Archive).

use std::sync::Arc;

use async_trait::async_trait;

use super::Store;
use crate::{BallotKey, Counts, Offset, Partition, Place, StoreError, Vote, VoteId};

/// The vote book, with a position B per partition of the log.
#[async_trait]
pub trait Book: Store {
    /// How far the book has come. [`Checkpoint::default`] for a partition it has never seen.
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError>;

    /// Stores those votes whose ballot key is not in the book yet, durably, and returns the indexes of the others.
    ///
    /// An index says nothing about whether that vote counts: after a crash it may be this very vote that was stored.
    /// Ask [`locate`](Self::locate).
    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError>;

    /// The place of the vote that stands for each ballot key; `None` if the book has none.
    async fn locate(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<Place>>, StoreError>;

    /// Notes records that repeat a ballot, so that they are known as repeats when the vote that stands has expired. Doing it
    /// twice is doing it once.
    async fn note_repeats(&self, repeats: Vec<Repeat>) -> Result<(), StoreError>;

    /// The noted repeats with offsets in `[from, to)`, by offset.
    async fn repeats(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Repeat>, StoreError>;

    /// Raises B to `checkpoint.offset` where `from <= B < checkpoint.offset`, if the cut-off is `checkpoint.cut_off`.
    async fn advance(&self, partition: Partition, from: Offset, checkpoint: Checkpoint)
    -> Result<Advanced, StoreError>;

    /// Votes with offsets in `[from, to)` by offset, at most `most`.
    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        most: usize,
    ) -> Result<Vec<LoggedVote>, StoreError>;

    /// What the partition's expired votes came to.
    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError>;

    /// In one step: if the partition's cut-off is exactly `from`, makes this its summary. Whether it was.
    async fn summarise(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError>;

    /// Deletes the partition's votes and repeats below its cut-off, except for votes that a repeat at or after the cut-off
    /// repeats: those still say that it does. Returns how many votes it deleted.
    async fn forget(&self, partition: Partition) -> Result<u64, StoreError>;

    /// About how many bytes the votes take, over all partitions.
    async fn size(&self) -> Result<u64, StoreError>;

    /// Sets B to `to` and forgets the last vote: the log from `to` on is recorded again. For an operator whose book lost
    /// votes, and only while no consumer runs, since one that does would go on from where it was.
    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError>;
}

/// How far the book has come in a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// B: the first offset not yet recorded.
    pub offset: Offset,
    /// The last record before it that was a vote, so that a log that was made anew is recognised.
    pub last: Option<(Offset, VoteId)>,
    /// Votes below this have expired: the partition's [`Summary`] has them, and documents that are still there count no more.
    pub cut_off: Offset,
}

/// What the expired votes of a partition came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// It has the votes below this.
    pub cut_off: Offset,
    /// Their counts; of the windows only those that are kept for ever.
    pub counts: Counts,
}

/// A record that repeats a ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repeat {
    /// Where it is.
    pub place: Place,
    /// The offset, in the same partition, of the vote that stands for the ballot.
    pub of: Offset,
}

/// What became of raising B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// B is the wanted position, or already was beyond it.
    Done,
    /// B is below `from`: there is a hole, and this is B.
    Hole(Offset),
    /// The cut-off is another, and is this: what was found to be a repeat may be one of a vote that has expired since.
    Expired(Offset),
}

/// A vote and where it is on the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedVote {
    /// Where.
    pub place: Place,
    /// The vote.
    pub vote: Vote,
}
