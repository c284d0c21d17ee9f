//! The domain of Ovation: what a vote is, which votes are the same, and how each vote is counted exactly once.
//!
//! # The path of a vote
//!
//! 1. A server reads a [`VoteRequest`] and gives it to [`Ingest::cast`].
//! 2. [`Vote::admit`] turns the request into a [`Vote`]. This is the only place that validates a vote, applies the
//!    rules of its [`Contest`] and computes its [`BallotKey`].
//! 3. [`LogWriter::publish`] writes the vote to the vote log. The [`Receipt`] arrives when the vote is durable on the
//!    log. Only then does the server acknowledge the vote.
//! 4. A consumer reads batches from the [`LogReader`] and gives them to the [`Counter`]. The counter records the votes
//!    in the [`Ledger`] and adds them to the [`Tallies`].
//! 5. The results show [`Tallies::tally`], and [`audit()`] verifies the tallies.
//!
//! Counted votes may expire: see [`Expiry`] and [`Retention`]. Reading single votes and datasets is another domain, in
//! `query/`.
//!
//! This crate does no I/O, depends on no driver and needs no async runtime. The ports are traits; the crates below
//! `stores/` have their adapters.

mod audit;
mod contest;
mod counter;
mod counts;
mod duration;
mod expiry;
#[cfg(feature = "fake")]
pub mod fake;
mod ids;
mod ingest;
mod json;
mod limits;
mod metadata;
mod ports;
mod refusal;
mod request;
mod retention;
mod tally;
mod text;
mod vote;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use audit::{AuditReport, audit};
pub use contest::{Contest, ContestError, Contests, VotesPerVoter};
pub use counter::{Counted, CountedVotes, Counter, Cursor, LogState, PartitionHalt, StorePositions};
pub use counts::{ContestCounts, Counts, Window};
pub use duration::{DurationError, parse_duration, parse_whole_duration};
pub use expiry::{CutOff, Expiry, ExpiryStep, LOG_TIME_ERROR, log_time};
pub use ids::{
    BallotKey, ContestId, LogPosition, Offset, Partition, TraceParent, UnixMillis, VoteId, VoterHash, VoterSecret,
};
pub use ingest::{Accepted, Forward, Ingest, PendingReceipt, ReceiptSender, Submission, publish_refusal};
pub use json::VOTE_FIELDS;
pub use limits::{MAX_BATCH_VOTES, MAX_VOTE_BYTES, VOTE_BODY_TIMEOUT, vote_too_large};
pub use metadata::VoteMetadata;
pub use ports::{
    Added, Advanced, Assignment, Batch, Bounds, Checkpoint, ClearCondition, ConnectError, DeadLetter, DeadLetterPart,
    DeadLetterReader, DeliveryFuture, DeliverySender, Duplicate, ForeignRecord, HealthDetails, InvalidRecord, Ledger,
    LedgerRepair, LedgerRetention, LogReader, LogWriter, OpenError, PublishError, Purged, Receipt, Record, Snapshot,
    Store, StoreError, Summary, Tallies, TalliesPosition, WholeLedger, delivery_channel,
};
pub use refusal::{Reason, Refusal};
pub use request::VoteRequest;
pub use retention::Retention;
pub use tally::{AlbumVotes, BandVotes, Others, RateWindow, Tally};
pub use text::{band_name, normalized};
pub use vote::{LoggedVote, ProducerKind, Vote};

/// The number of leading bands that are listed. The other bands are shown as one sum.
pub const TOP_BANDS: usize = 100;
