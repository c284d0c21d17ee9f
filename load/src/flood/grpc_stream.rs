//! Casts votes over a pipelined stream: `VoteService.CastVotes`.
//!
//! If a stream breaks, the outcome of its unanswered votes is unknown. They are sent again on the next stream if
//! `--retry-for` allows it, otherwise they count as failed. If the producer ends a stream because it shuts down, it has
//! not read the unanswered votes. They are sent again on the next stream, even if `--retry-for` is 0, until
//! `--retry-for` plus `--timeout` has passed since the vote was first sent.

use std::{
    collections::VecDeque,
    error::Error,
    time::{Duration, Instant},
};

use client::{Closed, VoteStream, error::chain};
use proto::v1::{CastVotesResponse, cast_votes_response};
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use service::grpc::{SHUTTING_DOWN, has_reason};
use tokio::{
    select,
    time::{sleep, sleep_until, timeout},
};
use tonic::{Code, Status, transport::Channel};

use super::{
    backoff::Backoff,
    grpc::{check_receipt, outcome_of_code},
    statistics::{Outcome, Statistics},
    votes::DueVote,
    worker::Worker,
};

/// The maximum number of available outcomes that are handled before votes are sent.
const MAX_OUTCOMES_AT_ONCE: usize = 256;

/// The shortest time between two sends of new votes. All votes that become due within this time are sent together. It
/// is the resolution of timers. Without this interval, each outcome that arrives would trigger a send of the one vote
/// that has just become due, in a packet of its own.
const SEND_INTERVAL: Duration = Duration::from_millis(1);

/// Casts the votes of one worker of the flood, over one stream at a time.
pub(super) struct Pipeline {
    worker: Worker,
    client: VoteServiceClient<Channel>,
    /// The maximum number of votes that are in flight or wait to be sent again.
    max_in_flight: usize,
    timeout: Duration,
    /// Votes to send again, each with the earliest time for it.
    retries: VecDeque<(Instant, PendingCast)>,
    backoff: Backoff,
    /// The earliest time of the next send of new votes.
    next_send: Instant,
}

/// A vote without a final outcome.
struct PendingCast {
    vote: DueVote,
    /// Until this time, a failed vote is sent again. Between this time and this time plus the timeout, a vote is
    /// sent again only if the producer shut down.
    retry_until: Instant,
}

/// Why a stream ended before all votes had an outcome.
enum StreamEnd {
    /// The producer shuts down. It has not read the votes without an outcome.
    ShuttingDown,
    /// The stream failed for this reason. The producer may have read the votes without an outcome.
    Broken(String),
}

impl From<Closed> for StreamEnd {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Status(status) if has_reason(&status, SHUTTING_DOWN) => Self::ShuttingDown,
            Closed::Status(status) => Self::Broken(reason(&status)),
            Closed::Ended => Self::Broken("the server ended the stream".to_owned()),
            Closed::UnexpectedOutcome => Self::Broken("more outcomes than votes".to_owned()),
        }
    }
}

impl Pipeline {
    pub(super) fn new(worker: Worker, channel: Channel, max_in_flight: usize, timeout: Duration) -> Self {
        Self {
            worker,
            client: VoteServiceClient::new(channel),
            max_in_flight,
            timeout,
            retries: VecDeque::new(),
            backoff: Backoff::default(),
            next_send: Instant::now(),
        }
    }

    /// Casts votes until the schedule has ended and every vote has its outcome.
    pub(super) async fn work(mut self) -> Statistics {
        loop {
            let mut stream = VoteStream::new(&self.client, self.max_in_flight, self.timeout);
            let Err(end) = self.run_stream(&mut stream).await else { return self.worker.statistics };
            let now = Instant::now();
            for pending in stream.into_unanswered() {
                match &end {
                    StreamEnd::ShuttingDown if now < pending.retry_until + self.timeout => {
                        self.worker.statistics.counts.retries += 1;
                        self.retries.push_back((now, pending));
                    }
                    StreamEnd::ShuttingDown => {
                        let limit = self.worker.retry_for + self.timeout;
                        let reason = format!("no producer took the vote within {limit:?}");
                        self.settle(pending, Outcome::Failed { reason }, now, now);
                    }
                    StreamEnd::Broken(reason) => {
                        self.settle(pending, Outcome::Failed { reason: reason.clone() }, now, now);
                    }
                }
            }
            select! {
                () = sleep(self.backoff.next()) => {}
                () = self.worker.stop.cancelled() => {}
            }
        }
    }

    /// Casts votes over one stream until every vote has its outcome.
    ///
    /// # Errors
    /// The reason if the stream ends earlier.
    async fn run_stream(&mut self, stream: &mut VoteStream<PendingCast>) -> Result<(), StreamEnd> {
        let stop = self.worker.stop.clone();
        let mut has_begun_call = false;
        while let Some(wake) = self.send_due(stream, Instant::now()) {
            has_begun_call = true;
            select! {
                biased;
                answered = stream.next() => {
                    let now = Instant::now();
                    // All votes that fail in one burst share one pause before they are sent again.
                    let mut pause = None;
                    let (pending, response) = answered?;
                    self.handle(pending, response, now, &mut pause);
                    for _ in 1..MAX_OUTCOMES_AT_ONCE {
                        let Some(answered) = stream.try_next() else { break };
                        let (pending, response) = answered?;
                        self.handle(pending, response, now, &mut pause);
                    }
                }
                () = sleep_until(wake.into()) => {
                    if stream.overdue_at().is_some_and(|overdue| overdue.into_std() <= Instant::now()) {
                        return Err(StreamEnd::Broken(format!("no response within {:?}", self.timeout)));
                    }
                }
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
        // All votes have their outcome. Wait until the server ends the stream: dropping it earlier would be a cancelled
        // call for the server.
        stream.finish();
        if has_begun_call {
            let _ = timeout(self.timeout, stream.next()).await;
        }
        Ok(())
    }

    /// Sends the votes that are due, up to the maximum number in flight. Returns the time at which to call this again,
    /// or `None` if the schedule has ended and every vote has its outcome.
    fn send_due(&mut self, stream: &mut VoteStream<PendingCast>, now: Instant) -> Option<Instant> {
        let is_stopped = self.worker.stop.is_cancelled();
        while let Some((_, pending)) = self.retries.pop_front_if(|(not_before, _)| *not_before <= now || is_stopped) {
            self.send_one(stream, pending, now);
        }
        let (mut next, next_send) = (None, self.next_send);
        while !is_stopped && stream.unanswered_count() + self.retries.len() < self.max_in_flight {
            next = self.worker.schedule.next_batch_at(now).map(|at| at.max(next_send));
            if next.is_none_or(|at| at > now) {
                break;
            }
            // The interval applies only at a fixed rate (an open loop). In a closed loop, a vote is sent as soon as an outcome arrives.
            if self.worker.schedule.is_open_loop() {
                self.next_send = now + SEND_INTERVAL;
            }
            let retry_until = now + self.worker.retry_for;
            for due in self.worker.schedule.take_batch(now) {
                let vote = self.worker.generator.generate(due);
                self.worker.statistics.counts.sent += 1;
                self.send_one(stream, PendingCast { vote, retry_until }, now);
            }
            next = None;
        }
        let first_retry = self.retries.front().map(|(not_before, _)| *not_before);
        let overdue = stream.overdue_at().map(tokio::time::Instant::into_std);
        [next, first_retry, overdue].into_iter().flatten().min()
    }

    fn send_one(&self, stream: &mut VoteStream<PendingCast>, pending: PendingCast, now: Instant) {
        stream.send(self.worker.bands.message(&pending.vote), pending, now.into());
    }

    /// Handles the outcome of a vote. `pause` is the pause of this burst before votes are sent again. If the vote is
    /// retryable and there is no pause yet, this sets it.
    fn handle(
        &mut self,
        pending: PendingCast,
        response: CastVotesResponse,
        now: Instant,
        pause: &mut Option<Duration>,
    ) {
        let outcome = match response.outcome {
            Some(cast_votes_response::Outcome::Receipt(receipt)) => check_receipt(&receipt.vote_id, &pending.vote),
            Some(cast_votes_response::Outcome::Error(error)) => {
                outcome_of_code(Code::from_i32(error.code), &error.message)
            }
            None => Outcome::Failed { reason: "the outcome is neither a receipt nor an error".to_owned() },
        };
        let mut not_before = now;
        if outcome.is_retryable() {
            not_before += *pause.get_or_insert_with(|| self.backoff.next());
        } else {
            self.backoff.reset();
        }
        self.settle(pending, outcome, now, not_before);
    }

    /// Queues a vote to be sent again after `not_before`, or records its outcome as the final one.
    fn settle(&mut self, pending: PendingCast, outcome: Outcome, now: Instant, not_before: Instant) {
        if outcome.is_retryable() && now < pending.retry_until && !self.worker.stop.is_cancelled() {
            self.worker.statistics.counts.retries += 1;
            self.retries.push_back((not_before, pending));
        } else {
            self.worker.statistics.record(&pending.vote, outcome, now);
        }
    }
}

/// Returns why a stream ended: the cause of a broken connection, or the status of the server.
fn reason(status: &Status) -> String {
    status.source().map_or_else(|| format!("{:?}: {}", status.code(), status.message()), chain)
}
