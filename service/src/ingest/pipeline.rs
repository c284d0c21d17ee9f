//! Casts many votes without waiting for the receipt of each.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use votes::{PendingReceipt, Reason, Refusal, Submission, VoteRequest, VoterHash};

use super::metered::{MeteredIngest, OpenCast, Outcome};
use crate::client_ip::Network;

/// The votes of one batch or stream that have no returned outcome yet. [`cast`](Self::cast) submits each vote to the
/// log at once. [`next`](Self::next) returns the outcomes in the order in which the votes were cast.
pub struct VotePipeline {
    ingest: MeteredIngest,
    entries: VecDeque<Entry>,
    /// The number of entries that wait for a receipt.
    pending: usize,
    network: Option<Network>,
    /// The number of votes that are not yet recorded for the heavy hitters. [`poll_next`](Self::poll_next) records them
    /// together. A caller polls it before it waits, so the votes are also recorded if the client then disconnects.
    unrecorded: u64,
    /// The voters among the unrecorded votes.
    voters: Vec<VoterHash>,
}

enum Entry {
    PendingReceipt(OpenCast, PendingReceipt),
    Refused(OpenCast, Refusal),
}

/// The vote was not cast, because the queue in front of the log is full, and some of its votes are from this pipeline.
/// Take the next outcome, which makes room, and cast the vote again.
#[derive(Debug, PartialEq, Eq)]
pub struct Backpressure;

impl VotePipeline {
    /// The maximum number of votes in one pipeline. It bounds the memory and the part of the queue that one client can
    /// use.
    pub const MAX_PENDING_VOTES: usize = 2_000;

    /// Creates an empty pipeline for votes from this network.
    pub fn new(ingest: MeteredIngest, network: Option<Network>) -> Self {
        Self { ingest, entries: VecDeque::new(), pending: 0, network, unrecorded: 0, voters: Vec::new() }
    }

    /// Returns whether the pipeline has no votes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether another vote may be cast. If not, take the next outcome first.
    pub fn has_room(&self) -> bool {
        self.entries.len() < Self::MAX_PENDING_VOTES
    }

    /// Submits a vote to the log, or adds its refusal to the pipeline.
    ///
    /// # Errors
    /// [`Backpressure`] if the queue in front of the log is full while votes of this pipeline are in it. If the queue
    /// is full of votes of other clients only, this returns `Ok`, and the outcome of the vote is [`Reason::QueueFull`].
    pub fn cast(&mut self, mut request: Result<VoteRequest, Refusal>) -> Result<(), Backpressure> {
        let open = self.ingest.begin_cast(&mut request);
        let is_parsed = request.is_ok();
        let Submission { voter, pending } = match request {
            Ok(request) => self.ingest.submit(request),
            Err(refusal) => Submission { voter: None, pending: Err(refusal) },
        };
        let entry = match pending {
            Ok(pending) => {
                self.pending += 1;
                Entry::PendingReceipt(open, pending)
            }
            Err(refusal) if refusal.reason == Reason::QueueFull && self.pending > 0 => {
                open.discard();
                return Err(Backpressure);
            }
            Err(refusal) => Entry::Refused(open, refusal),
        };
        self.unrecorded += u64::from(is_parsed);
        self.voters.extend(voter);
        self.entries.push_back(entry);
        Ok(())
    }

    /// Returns the outcome of the oldest vote, or `None` if the pipeline is empty.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        self.record_for_heavy_hitters();
        let outcome = match self.entries.front_mut() {
            Some(Entry::PendingReceipt(_, pending)) => Some(ready!(Pin::new(pending).poll(context))),
            _ => None,
        };
        let (open, outcome) = match (self.entries.pop_front(), outcome) {
            (Some(Entry::PendingReceipt(open, _)), Some(outcome)) => {
                self.pending -= 1;
                (open, outcome)
            }
            (Some(Entry::Refused(open, refusal)), _) => (open, Err(refusal)),
            _ => return Poll::Ready(None),
        };
        self.ingest.end_cast(open, &outcome);
        Poll::Ready(Some(outcome))
    }

    /// Waits for the outcome of the oldest vote, like [`poll_next`](Self::poll_next). You may drop the future: the next
    /// call returns the same outcome.
    pub async fn next(&mut self) -> Option<Outcome> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn record_for_heavy_hitters(&mut self) {
        if self.unrecorded > 0 {
            self.ingest.record_for_heavy_hitters(mem::take(&mut self.unrecorded), self.network, self.voters.drain(..));
        }
    }
}
