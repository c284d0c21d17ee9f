//! A worker: casts the votes of its schedule, sends failed votes again if that is allowed, and records the outcomes.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{select, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    backoff::Backoff,
    schedule::WorkerSchedule,
    statistics::{Outcome, Statistics},
    votes::{Bands, DueVote, VoteGenerator},
};

/// Casts a batch of votes. Except for the stream, this is the only part in which the protocols differ.
pub(super) trait Caster: Send {
    /// Casts the votes and appends the outcome of each to `outcomes`, in order. Returns after the timeout of a request
    /// at the latest.
    fn cast(
        &mut self,
        bands: &Bands,
        votes: &[DueVote],
        outcomes: &mut Vec<Outcome>,
    ) -> impl Future<Output = ()> + Send;
}

/// The state of a worker of any protocol.
pub(super) struct Worker {
    pub(super) schedule: WorkerSchedule,
    pub(super) generator: VoteGenerator,
    pub(super) bands: Arc<Bands>,
    pub(super) statistics: Statistics,
    pub(super) retry_for: Duration,
    /// When this is cancelled, the worker generates no more votes. It still waits for the outcomes of votes in flight,
    /// and makes one more attempt for votes that wait for a retry.
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Casts one batch after another until the schedule has ended.
    pub(super) async fn work(mut self, mut caster: impl Caster) -> Statistics {
        let (mut votes, mut outcomes) = (Vec::new(), Vec::new());
        let mut backoff = Backoff::default();
        while self.next_batch(&mut votes).await {
            self.statistics.counts.sent += votes.len() as u64;
            let retry_until = Instant::now() + self.retry_for;
            loop {
                caster.cast(&self.bands, &votes, &mut outcomes).await;
                let now = Instant::now();
                let has_failed = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed { .. }));
                self.settle(&mut votes, &mut outcomes, now, retry_until);
                if has_failed || !votes.is_empty() {
                    // Pause also if no vote is sent again, so that the worker does not call a server that is down in a
                    // tight loop.
                    self.pause(backoff.next()).await;
                } else {
                    backoff.reset();
                }
                if votes.is_empty() {
                    break;
                }
            }
        }
        self.statistics
    }

    /// Waits until the next batch is due, then generates its votes and appends them to `votes`. Returns `false` if the
    /// schedule has ended or the flood was stopped.
    async fn next_batch(&mut self, votes: &mut Vec<DueVote>) -> bool {
        let mut now = Instant::now();
        if self.stop.is_cancelled() {
            return false;
        }
        let Some(at) = self.schedule.next_batch_at(now) else { return false };
        if at > now {
            select! {
                () = sleep_until(at.into()) => now = Instant::now(),
                () = self.stop.cancelled() => return false,
            }
        }
        votes.extend(self.schedule.take_batch(now).map(|due| self.generator.generate(due)));
        true
    }

    /// Records the final outcomes and removes their votes from `votes`. The votes to send again remain in it. Clears
    /// `outcomes`.
    fn settle(&mut self, votes: &mut Vec<DueVote>, outcomes: &mut Vec<Outcome>, now: Instant, retry_until: Instant) {
        debug_assert_eq!(votes.len(), outcomes.len());
        let may_retry = now < retry_until && !self.stop.is_cancelled();
        let mut outcomes = outcomes.drain(..);
        votes.retain(|vote| {
            let outcome = outcomes.next().unwrap_or_else(|| Outcome::Failed { reason: "no response".to_owned() });
            let is_retried = may_retry && outcome.is_retryable();
            if is_retried {
                self.statistics.counts.retries += 1;
            } else {
                self.statistics.record(vote, outcome, now);
            }
            is_retried
        });
    }

    async fn pause(&self, pause: Duration) {
        select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
