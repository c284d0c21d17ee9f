//! The domain of Ovation: what a vote is, which votes are the same, and how each is counted exactly once.
//!
//! # A vote's way
//!
//! 1. A protocol reads a [`VoteRequest`] and hands it to [`Door::cast`].
//! 2. The door makes a [`Vote`] of it: the one place where a vote is validated, where the rules of its
//!    [`Contest`] are asked, and where its [`BallotKey`] is computed.
//! 3. [`VoteQueue::publish`] puts it on the vote log. The [`Receipt`] comes when the log has it for good, and only
//!    then the client is answered.
//! 4. A consumer takes batches from the [`VoteFeed`] and gives them to the [`Counter`], which records them in the
//!    [`Book`] and adds them to the [`Tallies`].
//! 5. [`Tallies::tally`] is what people look at, and [`audit()`] proves it.
//!
//! What people ask of single votes, and of datasets, is a [`query::Query`], that an [`Archive`] answers. Files become datasets or
//! votes as [`import`] says.
//!
//! Nothing here does I/O, knows a driver or needs an async runtime: the ports are traits, and `backends` has their adapters.

mod audit;
mod contest;
mod counter;
mod counts;
mod door;
#[cfg(feature = "fake")]
pub mod fake;
mod ids;
pub mod import;
mod json;
mod ports;
pub mod query;
mod refusal;
mod request;
mod retention;
mod tally;
mod vote;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use audit::{AuditReport, audit};
pub use contest::{Contest, ContestError, Contests, VotesPerVoter};
pub use counter::{Counted, Counter, CutOff, LogFacts, Positions, Progress, Standing, Stop};
pub use counts::{ContestCounts, Counts, Window};
pub use door::{Accepted, AnswerSender, Casting, Door, Forward, Submitted, unpublished};
pub use ids::{
    BallotKey, ContestId, Offset, Partition, Place, TraceParent, UnixMillis, VoteId, VoterHash, VoterSecret,
};
pub use ports::{
    Added, Advanced, Answers, Archive, Assignment, Batch, Book, Bounds, Checkpoint, ChunkQueue, Dataset, DatasetId,
    DatasetRow, Datasets, DeadLetter, Facts, Found, ImportProgress, Imports, KeptAnswer, LoggedVote, Lookup,
    ObjectWriter, Objects, Page, PendingReceipt, Poison, PublishError, Receipt, ReceiptSender, Record, Repeat,
    Snapshot, Store, StoreError, Summary, Table, Tallies, VoteFeed, VoteQueue, receipt_channel,
};
pub use refusal::{Reason, Refusal};
pub use request::VoteRequest;
pub use retention::Retention;
pub use tally::{AlbumVotes, BandVotes, Others, RateWindow, Tally};
pub use vote::{DoorKind, Vote, band_name};

/// The largest body of one vote, in bytes, in any encoding.
pub const MAX_VOTE_BYTES: usize = 16 * 1024;

/// The most votes of one batch.
pub const MAX_BATCH_VOTES: usize = 10_000;

/// How many bands of a contest that is open to any name are shown one by one; the rest is one sum.
pub const TOP_BANDS: usize = 100;
