//! The vote book: every counted vote, once, with its time and its place on the log.

use std::sync::Arc;

use async_trait::async_trait;

use super::Store;
use crate::{BallotKey, ContestId, Offset, Partition, Place, StoreError, UnixMillis, Vote, VoteId};

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

    /// Raises B to `checkpoint.offset` where `from <= B < checkpoint.offset`.
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

    /// Votes that match, newest first.
    async fn find(&self, query: VoteQuery) -> Result<Vec<LoggedVote>, StoreError>;

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
}

/// What became of raising B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advanced {
    /// B is the wanted position, or already was beyond it.
    Done,
    /// B is below `from`: there is a hole, and this is B.
    Hole(Offset),
}

/// A vote and where it is on the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedVote {
    /// Where.
    pub place: Place,
    /// The vote.
    pub vote: Vote,
}

/// What people ask the book.
#[derive(Clone, Debug)]
pub struct VoteQuery {
    /// The contest.
    pub contest: ContestId,
    /// Only votes for this band.
    pub name: Option<String>,
    /// Only votes accepted at or after this time.
    pub from: Option<UnixMillis>,
    /// Only votes accepted before this time.
    pub to: Option<UnixMillis>,
    /// At most so many.
    pub most: usize,
}
