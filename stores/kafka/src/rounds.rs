//! Groups votes into rounds, which are handed over to the Kafka client together.
//!
//! A round is a group of votes of partitions with the same leader. While less than [`MAX_ROUNDS`] rounds of a broker are
//! under way, a vote leaves at once, as a round of its own. Otherwise it waits, and all votes that wait for the broker
//! become the next round when one of its rounds ends. So the size of the rounds follows the load: a lone vote does not
//! wait, and at a high load many votes share the requests and the wake-ups of threads. Nothing here sleeps.
//!
//! A round ends when all of its votes have a delivery report. The tasks that wait for these votes are then woken
//! together. A round that takes longer than [`OVERDUE_AFTER`] no longer counts, so the next one begins. Its partitions
//! without a report are **slow** until a vote of theirs is confirmed. The votes of a slow partition are handed over at
//! once, outside of the rounds, so that they hold up no other partition. They may use only their partition's share of the
//! room for votes, so that they do not displace the votes of other partitions.
//!
//! librdkafka sends a request for each partition. So a round costs least if all of its votes are in one partition. A
//! producer that creates the id of a vote can choose the partition, and [`Rounds::preferred_partition`] is the best one.
//! It changes with each round, so all partitions get the same number of votes.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Gauge;
use tokio::sync::Notify;
use votes::{DeliverySender, LogPosition, Partition, PublishError, Receipt, UnixMillis};

/// The number of rounds of one broker that may be under way.
const MAX_ROUNDS: usize = 1;

/// The time after which a round no longer counts as under way.
const OVERDUE_AFTER: Duration = Duration::from_millis(100);

/// The time for which a slow partition is not preferred. Then a vote is tried.
const AVOID_TIME: Duration = Duration::from_secs(1);

/// The number of votes after which another partition is preferred, even if no round has begun.
const MAX_PREFERRED_VOTES: usize = 250;

/// The maximum number of partitions that are looked at to find the next preferred one.
const MAX_LOOKS: u16 = 64;

/// The number of bits of an opaque that are the index of the vote in its round.
const INDEX_BITS: u32 = 20;

/// The leader of a partition until the leader is known.
const UNKNOWN_LEADER: i32 = -1;

/// The votes without a receipt. `R` is the record of a vote.
pub(super) struct Rounds<R> {
    state: Mutex<State<R>>,
    max_votes: usize,
    preferred: AtomicU16,
    emptied: Notify,
    queued_votes: Gauge,
}

struct State<R> {
    partitions: Vec<PartitionState>,
    brokers: BTreeMap<i32, Broker<R>>,
    /// The rounds with a vote that has no outcome, by their numbers. A later round has a higher number.
    rounds: BTreeMap<usize, Round>,
    next_round: usize,
    /// The rounds before this one are overdue or have ended.
    first_punctual: usize,
    /// The number of votes whose receiver was not notified.
    votes: usize,
    preferred: Partition,
    /// The number of votes since `preferred` has changed.
    preferred_votes: usize,
    /// How often `preferred` has changed.
    turn: u64,
}

struct PartitionState {
    leader: i32,
    /// The number of votes without an outcome.
    votes: usize,
    /// When a round with a vote of this partition was overdue, unless a vote was confirmed since.
    slow_since: Option<Instant>,
    /// The turn in which this partition was preferred last.
    preferred_at: u64,
}

struct Broker<R> {
    /// The number of rounds that are under way and not overdue.
    rounds: usize,
    /// The votes of the next round.
    waiting: Vec<(R, Waiter)>,
}

impl<R> Default for Broker<R> {
    fn default() -> Self {
        Self { rounds: 0, waiting: Vec::new() }
    }
}

struct Round {
    /// The broker among whose rounds this one counts.
    counted_for: Option<i32>,
    begun: Instant,
    is_overdue: bool,
    /// The votes in the order of their indexes. `None` if a vote has its outcome.
    waiters: Vec<Option<Waiter>>,
    /// The number of votes without an outcome.
    votes: usize,
    /// The outcomes that the receivers get when the round ends.
    outcomes: Vec<Notification>,
}

struct Waiter {
    partition: Partition,
    accepted_at: UnixMillis,
    sender: DeliverySender,
}

type Notification = (DeliverySender, Result<Receipt, PublishError>);

/// What the caller has to do after a change, in this order.
#[must_use]
pub(super) struct Step<R> {
    /// Hand over these records to the Kafka client in this order, each with its opaque.
    pub(super) records: Vec<(usize, R)>,
    /// Pass these outcomes to [`Rounds::notify`].
    pub(super) notifications: Vec<Notification>,
}

impl<R> Default for Step<R> {
    fn default() -> Self {
        Self { records: Vec::new(), notifications: Vec::new() }
    }
}

impl<R> Rounds<R> {
    /// Creates an empty set for at most `max_votes` votes. The gauge shows their number.
    pub(super) fn new(partitions: u16, max_votes: usize, queued_votes: Gauge) -> Self {
        let partition = |_| PartitionState { leader: UNKNOWN_LEADER, votes: 0, slow_since: None, preferred_at: 0 };
        let state = State {
            partitions: (0..partitions).map(partition).collect(),
            brokers: BTreeMap::new(),
            rounds: BTreeMap::new(),
            next_round: 0,
            first_punctual: 0,
            votes: 0,
            preferred: Partition(0),
            preferred_votes: 0,
            turn: 0,
        };
        let (preferred, emptied) = (AtomicU16::new(0), Notify::new());
        Self { state: state.into(), max_votes, preferred, emptied, queued_votes }
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the partition in which the next vote costs the least.
    pub(super) fn preferred_partition(&self) -> Partition {
        Partition(self.preferred.load(Ordering::Relaxed))
    }

    /// Sets the brokers that lead the partitions. A partition that is not listed keeps its leader.
    pub(super) fn set_leaders(&self, leaders: impl IntoIterator<Item = (Partition, i32)>) {
        let mut state = self.state();
        for (partition, leader) in leaders {
            if let Some(partition) = state.partitions.get_mut(usize::from(partition.0)) {
                partition.leader = leader;
            }
        }
    }

    /// Adds a vote.
    ///
    /// # Errors
    /// [`PublishError::Full`] if there is no room for the vote.
    pub(super) fn add(
        &self,
        partition: Partition,
        record: R,
        accepted_at: UnixMillis,
        sender: DeliverySender,
    ) -> Result<Step<R>, PublishError> {
        let mut state = self.state();
        let partitions = state.partitions.len();
        let Some(known) = state.partitions.get_mut(usize::from(partition.0)) else {
            return Err(PublishError::Unavailable(format!("the vote log has no partition {partition}")));
        };
        let (leader, is_slow) = (known.leader, known.slow_since.is_some());
        if is_slow && known.votes >= (self.max_votes / partitions).max(1) || state.votes >= self.max_votes {
            return Err(PublishError::Full);
        }
        state.partitions[usize::from(partition.0)].votes += 1;
        state.votes += 1;
        self.queued_votes.set(state.votes as f64);
        let (vote, mut step) = ((record, Waiter { partition, accepted_at, sender }), Step::default());
        if is_slow {
            state.begin(None, vec![vote], &mut step.records);
        } else {
            let broker = state.brokers.entry(leader).or_default();
            broker.waiting.push(vote);
            if broker.rounds < MAX_ROUNDS {
                state.begin_next(leader, &mut step.records);
            }
        }
        if partition == state.preferred {
            state.preferred_votes += 1;
            if !step.records.is_empty() || state.preferred_votes >= MAX_PREFERRED_VOTES {
                state.prefer_next();
            }
        }
        self.preferred.store(state.preferred.0, Ordering::Relaxed);
        Ok(step)
    }

    /// Adds the outcome of a vote. Ignores the outcome of a vote that has timed out.
    pub(super) fn complete(&self, opaque: usize, outcome: Result<LogPosition, PublishError>) -> Step<R> {
        let (number, index) = (opaque >> INDEX_BITS, opaque & ((1 << INDEX_BITS) - 1));
        let (mut state, mut step) = (self.state(), Step::default());
        let Some(round) = state.rounds.get_mut(&number) else { return step };
        let Some(Waiter { partition, accepted_at, sender }) = round.waiters.get_mut(index).and_then(Option::take)
        else {
            return step;
        };
        let is_confirmed = outcome.is_ok();
        round.outcomes.push((sender, outcome.map(|position| Receipt { position, accepted_at })));
        round.votes -= 1;
        let has_ended = round.votes == 0;
        if has_ended || round.is_overdue {
            step.notifications = std::mem::take(&mut round.outcomes);
        }
        let counted_for = round.counted_for;
        let partition = &mut state.partitions[usize::from(partition.0)];
        partition.votes -= 1;
        if is_confirmed {
            partition.slow_since = None;
        }
        if has_ended {
            state.rounds.remove(&number);
            if let Some(broker) = counted_for {
                self.end_round(&mut state, broker, &mut step.records);
            }
        }
        step
    }

    /// Finds overdue rounds, and ends the wait of all votes that were handed over before `timeout`. Kafka may have stored
    /// such a vote or not. Returns the number of these votes.
    pub(super) fn expire(&self, timeout: Duration) -> (Step<R>, usize) {
        let (mut state, mut step, now) = (self.state(), Step::default(), Instant::now());
        let is_past = |begun: Instant, limit| now.saturating_duration_since(begun) >= limit;
        while let Some((number, round)) = state.next_punctual().filter(|(_, round)| is_past(round.begun, OVERDUE_AFTER))
        {
            round.is_overdue = true;
            step.notifications.append(&mut round.outcomes);
            let slow: Vec<_> = round.waiters.iter().flatten().map(|waiter| waiter.partition).collect();
            let counted_for = round.counted_for.take();
            state.first_punctual = number + 1;
            for partition in slow {
                state.partitions[usize::from(partition.0)].slow_since = Some(now);
            }
            if let Some(broker) = counted_for {
                self.end_round(&mut state, broker, &mut step.records);
            }
        }
        let mut timed_out = 0;
        while let Some(round) = state.rounds.first_entry().filter(|round| is_past(round.get().begun, timeout)) {
            for waiter in round.remove().waiters.into_iter().flatten() {
                let problem = format!("Kafka did not confirm the vote within {timeout:?}");
                step.notifications.push((waiter.sender, Err(PublishError::Unavailable(problem))));
                state.partitions[usize::from(waiter.partition.0)].votes -= 1;
                timed_out += 1;
            }
        }
        (step, timed_out)
    }

    fn end_round(&self, state: &mut State<R>, broker: i32, records: &mut Vec<(usize, R)>) {
        state.brokers.entry(broker).or_default().rounds -= 1;
        let records_before = records.len();
        state.begin_next(broker, records);
        let has_begun = records.len() > records_before && state.leader(state.preferred) == broker;
        if has_begun || !state.is_free(state.preferred) {
            state.prefer_next();
            self.preferred.store(state.preferred.0, Ordering::Relaxed);
        }
    }

    /// Sends the outcomes to their receivers.
    pub(super) fn notify(&self, notifications: Vec<Notification>) {
        let count = notifications.len();
        if count == 0 {
            return;
        }
        for (sender, outcome) in notifications {
            // The caller may have dropped the receiver. This does not change what is on the log.
            let _ = sender.send(outcome);
        }
        let mut state = self.state();
        state.votes -= count;
        self.queued_votes.set(state.votes as f64);
        if state.votes == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// Returns whether every vote has its outcome, and every receiver was notified.
    pub(super) fn is_empty(&self) -> bool {
        self.state().votes == 0
    }

    /// Waits until every vote has its outcome, and every receiver was notified.
    pub(super) async fn flush(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

impl<R> State<R> {
    fn leader(&self, partition: Partition) -> i32 {
        self.partitions[usize::from(partition.0)].leader
    }

    /// Returns whether a vote of the partition leaves at once.
    fn is_free(&self, partition: Partition) -> bool {
        self.brokers.get(&self.leader(partition)).is_none_or(|broker| broker.rounds < MAX_ROUNDS)
    }

    /// Returns the oldest round that is not overdue.
    fn next_punctual(&mut self) -> Option<(usize, &mut Round)> {
        self.rounds.range_mut(self.first_punctual..).next().map(|(number, round)| (*number, round))
    }

    /// Begins the next round of a broker with the votes that wait for it.
    fn begin_next(&mut self, leader: i32, records: &mut Vec<(usize, R)>) {
        let Some(broker) = self.brokers.get_mut(&leader) else { return };
        let mut votes = std::mem::take(&mut broker.waiting);
        // The records of a partition follow each other, so that librdkafka puts them into one request.
        votes.sort_by_key(|(_, waiter)| waiter.partition);
        let mut punctual = Vec::with_capacity(votes.len());
        let mut slow: Vec<(R, Waiter)> = Vec::new();
        for vote in votes {
            let partition = vote.1.partition;
            if self.partitions[usize::from(partition.0)].slow_since.is_none() {
                punctual.push(vote);
                continue;
            }
            // A slow partition must not hold up another slow one.
            if slow.last().is_some_and(|(_, last)| last.partition != partition) {
                self.begin(None, std::mem::take(&mut slow), records);
            }
            slow.push(vote);
        }
        self.begin(None, slow, records);
        self.begin(Some(leader), punctual, records);
    }

    /// Begins a round. If it is `counted_for` a broker, it counts among the rounds of this broker.
    fn begin(&mut self, counted_for: Option<i32>, mut votes: Vec<(R, Waiter)>, records: &mut Vec<(usize, R)>) {
        while !votes.is_empty() {
            let rest = votes.split_off(votes.len().min(1 << INDEX_BITS));
            let number = self.next_round;
            self.next_round += 1;
            let mut waiters = Vec::with_capacity(votes.len());
            for (index, (record, waiter)) in votes.into_iter().enumerate() {
                records.push((number << INDEX_BITS | index, record));
                waiters.push(Some(waiter));
            }
            let (votes_of_round, outcomes) = (waiters.len(), Vec::with_capacity(waiters.len()));
            let begun = Instant::now();
            let round = Round { counted_for, begun, is_overdue: false, waiters, votes: votes_of_round, outcomes };
            self.rounds.insert(number, round);
            if let Some(broker) = counted_for {
                self.brokers.entry(broker).or_default().rounds += 1;
            }
            votes = rest;
        }
    }

    /// Prefers the partition that was not preferred for the longest time, of those that are not slow and whose broker can
    /// take a round, if there are any.
    fn prefer_next(&mut self) {
        let partitions = u16::try_from(self.partitions.len()).unwrap_or(u16::MAX).max(1);
        let following = |step: u16| Partition((self.preferred.0 + step) % partitions);
        let state_of = |partition: &Partition| &self.partitions[usize::from(partition.0)];
        let is_prompt =
            |partition: &Partition| state_of(partition).slow_since.is_none_or(|since| since.elapsed() > AVOID_TIME);
        let prompt = || (1..=partitions.min(MAX_LOOKS)).map(following).filter(is_prompt);
        let preferred_at = |partition: &Partition| state_of(partition).preferred_at;
        let next = prompt().filter(|partition| self.is_free(*partition)).min_by_key(preferred_at);
        let next = next.or_else(|| prompt().min_by_key(preferred_at)).unwrap_or_else(|| following(1));
        (self.preferred, self.preferred_votes) = (next, 0);
        self.turn += 1;
        self.partitions[usize::from(next.0)].preferred_at = self.turn;
    }
}

#[cfg(test)]
mod tests;
