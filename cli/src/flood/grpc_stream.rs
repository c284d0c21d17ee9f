//! A pipeline of votes: `VoteService.CastVotes`.
//!
//! Outcomes come in the order of the votes, so a queue of what was sent knows which vote an outcome is for. A stream
//! that breaks leaves the fate of that queue open: those votes failed, or go first on the next stream. A door that leaves
//! says that it took none of them: they go on the next stream as if they had never been sent.

use std::{
    collections::VecDeque,
    error::Error,
    pin::pin,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryFutureExt};
use proto::v1::{CastVoteRequest, CastVotesResponse, cast_votes_response, vote_service_client::VoteServiceClient};
use service::grpc::{DOOR_CLOSING, has_reason};
use tokio::{
    select,
    sync::mpsc,
    time::{sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

use super::{
    backoff::Backoff,
    grpc::{receipt_of, refusal_of},
    http::describe,
    ledger::{Answer, Ledger},
    votes::DueVote,
    worker::Worker,
};

/// Outcomes that are taken at once when they are there, before votes are sent again.
const OUTCOMES_AT_ONCE: usize = 256;

/// New votes are sent at most that often, those that became due meanwhile in one go: the granularity that timers have
/// anyway. Without it every outcome that arrives would send the one vote that just became due, in a packet of its own.
const TICK: Duration = Duration::from_millis(1);

/// A worker with one stream at a time.
pub(super) struct Pipeline {
    worker: Worker,
    client: VoteServiceClient<Channel>,
    /// How many votes may be on their way or waiting to be sent again.
    window: usize,
    timeout: Duration,
    /// Sent on this stream and not answered, oldest first.
    outstanding: VecDeque<Casting>,
    /// To be sent again, and not before when.
    again: VecDeque<(Instant, Casting)>,
    backoff: Backoff,
    /// When new votes may be sent.
    next_tick: Instant,
}

struct Casting {
    vote: DueVote,
    sent: Instant,
    /// Until when it is worth sending it again.
    give_up: Instant,
}

/// How a stream ended before there was nothing more to do.
enum End {
    /// The door leaves, and took nothing that it didn't answer.
    DoorCloses,
    Broken(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        if has_reason(&status, DOOR_CLOSING) { Self::DoorCloses } else { Self::Broken(why(&status)) }
    }
}

impl Pipeline {
    pub(super) fn new(worker: Worker, channel: Channel, window: usize, timeout: Duration) -> Self {
        Self {
            worker,
            client: VoteServiceClient::new(channel),
            window,
            timeout,
            outstanding: VecDeque::new(),
            again: VecDeque::new(),
            backoff: Backoff::default(),
            next_tick: Instant::now(),
        }
    }

    /// Casts votes until the schedule is over and every vote is done with.
    pub(super) async fn work(mut self) -> Ledger {
        while let Err(end) = self.converse().await {
            let now = Instant::now();
            while let Some(casting) = self.outstanding.pop_front() {
                match &end {
                    End::DoorCloses if now < casting.give_up + self.timeout => {
                        self.worker.ledger.counts.retries += 1;
                        self.again.push_back((now, casting));
                    }
                    End::DoorCloses => {
                        let reason = format!("no door took it within {:?}", self.timeout);
                        self.settle(casting, Answer::Failed { reason }, now, now);
                    }
                    End::Broken(reason) => self.settle(casting, Answer::Failed { reason: reason.clone() }, now, now),
                }
            }
            select! {
                () = sleep(self.backoff.next()) => {}
                () = self.worker.stop.cancelled() => {}
            }
        }
        self.worker.ledger
    }

    /// One stream. It ends when there is nothing more to do.
    ///
    /// # Errors
    /// How it ended before that.
    async fn converse(&mut self) -> Result<(), End> {
        // Never full, as no more than the window is outstanding.
        let (requests, source) = mpsc::channel(self.window);
        let mut client = self.client.clone();
        let call = async move { client.cast_votes(ReceiverStream::new(source)).await.map(tonic::Response::into_inner) };
        // The call answers only when the server has begun to: sending does not wait for that.
        let mut outcomes = pin!(call.try_flatten_stream().ready_chunks(OUTCOMES_AT_ONCE));
        let stop = self.worker.stop.clone();
        let mut is_open = false;
        while let Some(wake) = self.send(&requests, Instant::now()) {
            is_open = true;
            select! {
                biased;
                some = outcomes.next() => {
                    let now = Instant::now();
                    // One pause for all votes of a burst that are to be sent again.
                    let mut pause = None;
                    for outcome in some.ok_or_else(|| End::Broken("the server ended the stream".to_owned()))? {
                        self.take(outcome?, now, &mut pause).map_err(End::Broken)?;
                    }
                }
                () = sleep_until(wake.into()) => {
                    let oldest = self.outstanding.front();
                    if oldest.is_some_and(|oldest| oldest.sent + self.timeout <= Instant::now()) {
                        return Err(End::Broken(format!("no answer within {:?}", self.timeout)));
                    }
                }
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
        // All votes have their outcome; letting the server end the stream spares it the news of a cancelled one.
        drop(requests);
        if is_open {
            let _ = timeout(self.timeout, outcomes.next()).await;
        }
        Ok(())
    }

    /// Sends what is to be sent now, as far as the window goes; then when there is more to do, or nothing if all is done.
    fn send(&mut self, requests: &mpsc::Sender<CastVoteRequest>, now: Instant) -> Option<Instant> {
        let is_stopped = self.worker.stop.is_cancelled();
        while let Some((_, casting)) = self.again.pop_front_if(|(not_before, _)| *not_before <= now || is_stopped) {
            self.send_one(requests, Casting { sent: now, ..casting });
        }
        let (mut next, tick) = (None, self.next_tick);
        while !is_stopped && self.outstanding.len() + self.again.len() < self.window {
            next = self.worker.turns.next_at(now).map(|at| at.max(tick));
            if next.is_none_or(|at| at > now) {
                break;
            }
            if self.worker.turns.is_open_loop() {
                self.next_tick = now + TICK;
            }
            let give_up = now + self.worker.retry_for;
            for due in self.worker.turns.take(now) {
                let vote = self.worker.draw.draw(due);
                self.worker.ledger.counts.sent += 1;
                self.send_one(requests, Casting { vote, sent: now, give_up });
            }
            next = None;
        }
        let first_again = self.again.front().map(|(not_before, _)| *not_before);
        let overdue = self.outstanding.front().map(|oldest| oldest.sent + self.timeout);
        [next, first_again, overdue].into_iter().flatten().min()
    }

    fn send_one(&mut self, requests: &mpsc::Sender<CastVoteRequest>, casting: Casting) {
        let message = self.worker.bands.message(&casting.vote);
        self.outstanding.push_back(casting);
        // A stream that takes no more is broken: its outcomes end with the reason, or the vote's time runs out.
        let _ = requests.try_send(message);
    }

    /// Takes the outcome of the oldest vote that has none.
    fn take(&mut self, outcome: CastVotesResponse, now: Instant, pause: &mut Option<Duration>) -> Result<(), String> {
        let casting = self.outstanding.pop_front().ok_or("more outcomes than votes")?;
        let answer = match outcome.outcome {
            Some(cast_votes_response::Outcome::Receipt(receipt)) => receipt_of(&receipt.vote_id, &casting.vote),
            Some(cast_votes_response::Outcome::Error(error)) => refusal_of(Code::from_i32(error.code), &error.message),
            None => Answer::Failed { reason: "an outcome that is neither a receipt nor an error".to_owned() },
        };
        let mut not_before = now;
        if answer.is_worth_repeating() {
            not_before += *pause.get_or_insert_with(|| self.backoff.next());
        } else {
            self.backoff.reset();
        }
        self.settle(casting, answer, now, not_before);
        Ok(())
    }

    fn settle(&mut self, casting: Casting, answer: Answer, now: Instant, not_before: Instant) {
        if answer.is_worth_repeating() && now < casting.give_up && !self.worker.stop.is_cancelled() {
            self.worker.ledger.counts.retries += 1;
            self.again.push_back((not_before, casting));
        } else {
            self.worker.ledger.enter(&casting.vote, answer, now);
        }
    }
}

/// Why a stream ended: the cause of a broken connection, or what the server said of the whole stream.
fn why(status: &Status) -> String {
    status.source().map_or_else(|| format!("{:?}: {}", status.code(), status.message()), describe)
}
