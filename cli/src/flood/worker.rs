//! A worker: takes its turns of the schedule, casts the votes, sends again what is worth it, and keeps its ledger.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{select, time::sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    backoff::Backoff,
    ledger::{Answer, Ledger},
    schedule::Turns,
    votes::{Bands, Draw, DueVote},
};

/// Casts a unit of votes in one request. Protocols differ in nothing else, but for the stream.
pub(super) trait Caster: Send {
    /// Appends an answer for each vote, in order, within the time a request may take.
    fn cast(&mut self, bands: &Bands, votes: &[DueVote], answers: &mut Vec<Answer>) -> impl Future<Output = ()> + Send;
}

/// What every worker has.
pub(super) struct Worker {
    pub(super) turns: Turns,
    pub(super) draw: Draw,
    pub(super) bands: Arc<Bands>,
    pub(super) ledger: Ledger,
    pub(super) retry_for: Duration,
    /// When it fires no more votes are drawn; those in flight get their answer, those in a pause one more attempt.
    pub(super) stop: CancellationToken,
}

impl Worker {
    /// Casts one unit after the other until the schedule is over.
    pub(super) async fn work(mut self, mut caster: impl Caster) -> Ledger {
        let (mut votes, mut answers) = (Vec::new(), Vec::new());
        let mut backoff = Backoff::default();
        while self.next_unit(&mut votes).await {
            self.ledger.counts.sent += votes.len() as u64;
            let give_up = Instant::now() + self.retry_for;
            loop {
                caster.cast(&self.bands, &votes, &mut answers).await;
                let now = Instant::now();
                let has_failed = answers.iter().any(|answer| matches!(answer, Answer::Failed { .. }));
                self.settle(&mut votes, &mut answers, now, give_up);
                if has_failed || !votes.is_empty() {
                    // Also without retries: a server that is down is not to be called in a tight loop.
                    self.pause(backoff.next()).await;
                } else {
                    backoff.reset();
                }
                if votes.is_empty() {
                    break;
                }
            }
        }
        self.ledger
    }

    /// Waits until the next unit is due and draws its votes; false if there is none any more.
    async fn next_unit(&mut self, votes: &mut Vec<DueVote>) -> bool {
        let mut now = Instant::now();
        if self.stop.is_cancelled() {
            return false;
        }
        let Some(at) = self.turns.next_at(now) else { return false };
        if at > now {
            select! {
                () = sleep_until(at.into()) => now = Instant::now(),
                () = self.stop.cancelled() => return false,
            }
        }
        votes.extend(self.turns.take(now).map(|due| self.draw.draw(due)));
        true
    }

    /// Enters the answers of votes that are done with; the votes to send again stay.
    fn settle(&mut self, votes: &mut Vec<DueVote>, answers: &mut Vec<Answer>, now: Instant, give_up: Instant) {
        debug_assert_eq!(votes.len(), answers.len());
        let may_repeat = now < give_up && !self.stop.is_cancelled();
        let mut answers = answers.drain(..);
        votes.retain(|vote| {
            let answer = answers.next().unwrap_or_else(|| Answer::Failed { reason: "no answer".to_owned() });
            let repeat = may_repeat && answer.is_worth_repeating();
            if repeat {
                self.ledger.counts.retries += 1;
            } else {
                self.ledger.enter(vote, answer, now);
            }
            repeat
        });
    }

    async fn pause(&self, pause: Duration) {
        select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.cancelled() => {}
        }
    }
}
