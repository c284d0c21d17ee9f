//! The conformance suites that every adapter of a port must pass.
//!
//! Each promise is an async function that panics when the promise is broken. The tests of an adapter pass a function
//! that opens empty stores:
//!
//! ```ignore
//! async fn open() -> (Arc<dyn LogWriter>, Arc<dyn LogReader>, impl Any) { .. }
//! votes::log_conformance!(open);
//! ```
//!
//! The last value that `open` returns is dropped after the promise was tested. This value may be a temporary folder or
//! a server.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::similar_names,
    clippy::unnecessary_wraps,
    missing_docs,
    reason = "a broken promise panics, and the name of a promise is its documentation"
)]

pub mod counting;
pub mod ledger;
pub mod log;
pub mod tallies;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use uuid::Uuid;

use crate::{
    BallotKey, Batch, Contests, LogPosition, LoggedVote, Offset, Partition, ProducerKind, Record, UnixMillis, Vote,
    VoteId, VoteRequest, VoterSecret,
};

/// The time of acceptance of vote 0: 2026-11-21T12:00:00Z.
pub const NOON: UnixMillis = UnixMillis(1_795_262_400_000);

/// Returns vote `n`, for one of seven bands.
pub fn vote(n: u64) -> Vote {
    let request = VoteRequest {
        name: Some(format!("Band {}", n % 7)),
        album: n.is_multiple_of(2).then(|| format!("Album {}", n % 3)),
        year: Some(1970 + i64::try_from(n % 50).expect("small")),
        rank: Some((n % 100) as f64 + 0.5),
        voter: n.is_multiple_of(3).then(|| format!("voter {n}")),
        vote_id: Some(Uuid::from_u128(u128::from(n) + 1).to_string()),
        traceparent: n.is_multiple_of(5).then(|| format!("00-{:032x}-{:016x}-01", n + 1, n + 1)),
        ..VoteRequest::default()
    };
    let secret = VoterSecret::new(&[7; 32]).expect("long enough");
    let producer = if n.is_multiple_of(2) { ProducerKind::Rest } else { ProducerKind::Grpc };
    let at = UnixMillis(NOON.0 + i64::try_from(n).expect("small") * 7);
    Vote::admit(request, &Contests::default(), Some(&secret), producer, at).expect("a valid vote")
}

/// Returns vote `n` at a position.
pub fn logged(n: u64, partition: Partition, offset: u64) -> LoggedVote {
    let mut vote = vote(n);
    // A ledger does not have to store the trace.
    vote.traceparent = None;
    LoggedVote { position: LogPosition { partition, offset: Offset(offset) }, vote }
}

/// Returns a batch that begins at `from` and has these votes at consecutive offsets.
pub fn batch(partition: Partition, from: u64, votes: &[u64]) -> Batch {
    let offsets = from..;
    let records: Vec<Record> = offsets
        .zip(votes)
        .map(|(offset, n)| {
            let LoggedVote { vote, .. } = logged(*n, partition, offset);
            Record { offset: Offset(offset), accepted_at: vote.accepted_at, vote: Ok(vote) }
        })
        .collect();
    let to = Offset(from + records.len() as u64);
    Batch { partition, from: Offset(from), to, records }
}

/// Returns the id of vote `n`.
pub fn vote_id(n: u64) -> VoteId {
    vote(n).vote_id
}

/// Returns the ballot key of vote `n`.
pub fn key(n: u64) -> BallotKey {
    vote(n).key
}

/// Polls a future once and drops it, as a caller does that cancels a call.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
