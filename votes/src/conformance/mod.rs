//! The suites that every adapter of a port passes.
//!
//! A promise is an async function that panics when it is broken. A backend's test file names how to open a fresh store:
//!
//! ```ignore
//! async fn open() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, impl Any) { .. }
//! votes::log_conformance!(open);
//! ```
//!
//! The last part of what `open` returns is kept until the promise was tried: a temporary folder, a server.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::similar_names,
    clippy::unnecessary_wraps,
    missing_docs,
    reason = "a broken promise panics, and each promise's name is its documentation"
)]

pub mod answers;
pub mod archive;
pub mod book;
pub mod counting;
pub mod datasets;
pub mod imports;
pub mod log;
pub mod objects;
pub mod tallies;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use uuid::Uuid;

use crate::{
    BallotKey, Batch, Contests, DoorKind, LoggedVote, Offset, Partition, Place, Record, UnixMillis, Vote, VoteId,
    VoteRequest, VoterSecret,
};

/// A time of acceptance to count from: 2026-11-21T12:00:00Z.
pub const NOON: UnixMillis = UnixMillis(1_795_262_400_000);

/// The `n`th vote, for one of seven bands.
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
    let door = if n.is_multiple_of(2) { DoorKind::Rest } else { DoorKind::Grpc };
    let at = UnixMillis(NOON.0 + i64::try_from(n).expect("small") * 7);
    Vote::admit(request, &Contests::default(), Some(&secret), door, at).expect("a valid vote")
}

/// The `n`th vote at a place.
pub fn logged(n: u64, partition: Partition, offset: u64) -> LoggedVote {
    let mut vote = vote(n);
    // Stores need not keep the trace.
    vote.traceparent = None;
    LoggedVote { place: Place { partition, offset: Offset(offset) }, vote }
}

/// A batch that begins at `from` and has the `n`th votes, one an offset.
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

/// The id of the `n`th vote.
pub fn vote_id(n: u64) -> VoteId {
    vote(n).vote_id
}

/// The ballot key of the `n`th vote.
pub fn key(n: u64) -> BallotKey {
    vote(n).key
}

/// Polls a future once and drops it: a caller that gave up.
fn give_up<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
