//! Groups votes into rounds, which are handed over to the Kafka client together.
//!
//! A round is a group of votes of partitions with the same leader. While a round of a broker is under way, votes for this
//! broker wait, and all of them become the next round. So the size of the rounds follows the load: a lone vote does not
//! wait, and at a high load many votes share the requests and the wake-ups of threads. Nothing here sleeps.
//!
//! A round ends when all of its votes have a delivery report. The tasks that wait for these votes are then woken
//! together. One task of the runtime wakes them and begins the next rounds. It yields in between, so the votes of tasks
//! that are ready to run are in the next round, too.
//!
//! A round that takes longer than [`OVERDUE_AFTER`] no longer counts, so the next one begins. Its partitions without a
//! report are **slow** until a vote of theirs is confirmed. The votes of a slow partition are handed over at once, outside
//! of the rounds, so that they hold up no other partition. They may use only their partition's share of the room for
//! votes, so that they do not displace the votes of other partitions.
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

/// The maximum number of votes of a round.
const MAX_VOTES_PER_ROUND: usize = 1 << INDEX_BITS;

/// The leader of a partition until the leader is known.
const UNKNOWN_LEADER: i32 = -1;

/// The votes without a receipt. `R` is the record of a vote.
pub(super) struct Rounds<R> {
    state: Mutex<State<R>>,
    max_votes: usize,
    preferred: AtomicU16,
    /// Notified when a round can begin, or votes have their outcomes.
    changed: Notify,
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
    /// The outcomes of rounds that have ended, whose receivers were not notified.
    outcomes: Vec<Notification>,
    /// The records of slow partitions, which leave without a round.
    slow_records: Vec<(usize, R)>,
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
    /// Whether a round is under way and not overdue.
    is_busy: bool,
    /// The votes of the next round.
    waiting: Vec<(R, Waiter)>,
}

impl<R> Default for Broker<R> {
    fn default() -> Self {
        Self { is_busy: false, waiting: Vec::new() }
    }
}

struct Round {
    /// The broker that is busy with this round.
    broker: Option<i32>,
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
            outcomes: Vec::new(),
            slow_records: Vec::new(),
            votes: 0,
            preferred: Partition(0),
            preferred_votes: 0,
            turn: 0,
        };
        let (preferred, changed, emptied) = (AtomicU16::new(0), Notify::new(), Notify::new());
        Self { state: state.into(), max_votes, preferred, changed, emptied, queued_votes }
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
    ) -> Result<(), PublishError> {
        let mut state = self.state();
        let (partitions, is_full) = (state.partitions.len(), state.votes >= self.max_votes);
        let Some(known) = state.partitions.get_mut(usize::from(partition.0)) else {
            return Err(PublishError::Unavailable(format!("the vote log has no partition {partition}")));
        };
        let (leader, is_slow) = (known.leader, known.slow_since.is_some());
        let has_room = !is_full && (!is_slow || known.votes < (self.max_votes / partitions).max(1));
        if has_room {
            known.votes += 1;
        }
        if is_slow && partition == state.preferred {
            // This vote tries the partition. Another one does so only after a while, if this one is not confirmed.
            state.partitions[usize::from(partition.0)].slow_since = Some(Instant::now());
            self.prefer_next(&mut state);
        }
        if !has_room {
            return Err(PublishError::Full);
        }
        state.votes += 1;
        self.queued_votes.set(state.votes as f64);
        let vote = (record, Waiter { partition, accepted_at, sender });
        let can_leave = if is_slow {
            state.begin_slow(vote);
            true
        } else {
            let broker = state.brokers.entry(leader).or_default();
            broker.waiting.push(vote);
            !broker.is_busy
        };
        if partition == state.preferred {
            state.preferred_votes += 1;
            if state.preferred_votes >= MAX_PREFERRED_VOTES {
                self.prefer_next(&mut state);
            }
        }
        drop(state);
        if can_leave {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Adds the outcome of a vote. Ignores the outcome of a vote that has timed out.
    pub(super) fn complete(&self, opaque: usize, outcome: Result<LogPosition, PublishError>) {
        let (number, index) = (opaque >> INDEX_BITS, opaque & ((1 << INDEX_BITS) - 1));
        let mut state = self.state();
        let Some(round) = state.rounds.get_mut(&number) else { return };
        let Some(Waiter { partition, accepted_at, sender }) = round.waiters.get_mut(index).and_then(Option::take)
        else {
            return;
        };
        let is_confirmed = outcome.is_ok();
        round.outcomes.push((sender, outcome.map(|position| Receipt { position, accepted_at })));
        round.votes -= 1;
        let (has_ended, is_overdue, broker) = (round.votes == 0, round.is_overdue, round.broker);
        if has_ended || is_overdue {
            let mut outcomes = std::mem::take(&mut round.outcomes);
            state.outcomes.append(&mut outcomes);
        }
        let partition = &mut state.partitions[usize::from(partition.0)];
        partition.votes -= 1;
        if is_confirmed {
            partition.slow_since = None;
        }
        if has_ended {
            state.rounds.remove(&number);
            self.release(&mut state, broker);
        }
        drop(state);
        if has_ended || is_overdue {
            self.changed.notify_one();
        }
    }

    /// Finds overdue rounds, and ends the wait of all votes that were handed over before `timeout`. Kafka may have stored
    /// such a vote or not. Returns the number of these votes.
    pub(super) fn expire(&self, timeout: Duration) -> usize {
        let (mut state, now, mut timed_out) = (self.state(), Instant::now(), 0);
        let first_punctual = state.first_punctual;
        let is_past = |begun: Instant, limit| now.saturating_duration_since(begun) >= limit;
        while let Some((number, round)) = state.next_punctual().filter(|(_, round)| is_past(round.begun, OVERDUE_AFTER))
        {
            round.is_overdue = true;
            let mut outcomes = std::mem::take(&mut round.outcomes);
            let slow: Vec<_> = round.waiters.iter().flatten().map(|waiter| waiter.partition).collect();
            let broker = round.broker.take();
            state.outcomes.append(&mut outcomes);
            state.first_punctual = number + 1;
            for partition in slow {
                state.partitions[usize::from(partition.0)].slow_since = Some(now);
            }
            self.release(&mut state, broker);
        }
        if state.partitions[usize::from(state.preferred.0)].slow_since == Some(now) {
            self.prefer_next(&mut state);
        }
        while let Some(round) = state.rounds.first_entry().filter(|round| is_past(round.get().begun, timeout)) {
            for waiter in round.remove().waiters.into_iter().flatten() {
                let problem = format!("Kafka did not confirm the vote within {timeout:?}");
                state.outcomes.push((waiter.sender, Err(PublishError::Unavailable(problem))));
                state.partitions[usize::from(waiter.partition.0)].votes -= 1;
                timed_out += 1;
            }
        }
        if timed_out > 0 || state.first_punctual > first_punctual {
            self.changed.notify_one();
        }
        timed_out
    }

    /// Marks that a broker is no longer busy with a round.
    fn release(&self, state: &mut State<R>, broker: Option<i32>) {
        let Some(broker) = broker else { return };
        state.brokers.entry(broker).or_default().is_busy = false;
        if !state.is_free(state.preferred) {
            self.prefer_next(state);
        }
    }

    /// Prefers another partition.
    fn prefer_next(&self, state: &mut State<R>) {
        state.prefer_next();
        self.preferred.store(state.preferred.0, Ordering::Relaxed);
    }

    /// Waits until a round can begin, or receivers can be notified.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends the current or the next call of [`Self::changed`].
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Begins a round of each broker that is not busy and has waiting votes. The caller must hand over the records to the
    /// Kafka client in this order, each with its opaque.
    pub(super) fn begin(&self) -> Vec<(usize, R)> {
        let mut state = self.state();
        let mut records = std::mem::take(&mut state.slow_records);
        let is_ready = |broker: &Broker<R>| !broker.is_busy && !broker.waiting.is_empty();
        let ready: Vec<i32> =
            state.brokers.iter().filter(|(_, broker)| is_ready(broker)).map(|(leader, _)| *leader).collect();
        for leader in ready {
            state.begin_next(leader, &mut records);
            if state.leader(state.preferred) == leader {
                self.prefer_next(&mut state);
            }
        }
        records
    }

    /// Sends the outcomes of the rounds that have ended to their receivers.
    pub(super) fn notify(&self) {
        let outcomes = std::mem::take(&mut self.state().outcomes);
        let count = outcomes.len();
        if count == 0 {
            return;
        }
        for (sender, outcome) in outcomes {
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
        self.brokers.get(&self.leader(partition)).is_none_or(|broker| !broker.is_busy)
    }

    /// Returns the oldest round that is not overdue.
    fn next_punctual(&mut self) -> Option<(usize, &mut Round)> {
        self.rounds.range_mut(self.first_punctual..).next().map(|(number, round)| (*number, round))
    }

    /// Begins the next round of a broker with the votes that wait for it.
    fn begin_next(&mut self, leader: i32, records: &mut Vec<(usize, R)>) {
        let broker = self.brokers.entry(leader).or_default();
        let mut votes = std::mem::take(&mut broker.waiting);
        broker.waiting = votes.split_off(votes.len().min(MAX_VOTES_PER_ROUND));
        // The records of a partition follow each other, so that librdkafka puts them into one request.
        votes.sort_by_key(|(_, waiter)| waiter.partition);
        let is_slow = |(_, waiter): &(R, Waiter)| self.partitions[usize::from(waiter.partition.0)].slow_since.is_some();
        let (slow, punctual): (Vec<_>, Vec<_>) = votes.into_iter().partition(is_slow);
        for vote in slow {
            self.begin_slow(vote);
        }
        records.append(&mut self.slow_records);
        if !punctual.is_empty() {
            self.brokers.entry(leader).or_default().is_busy = true;
            records.extend(self.register(Some(leader), punctual));
        }
    }

    /// Begins a round with one vote of a slow partition. No broker is busy with it, so that it holds up no other votes.
    fn begin_slow(&mut self, vote: (R, Waiter)) {
        let records = self.register(None, vec![vote]);
        self.slow_records.extend(records);
    }

    /// Adds a round with these votes. Returns the records with their opaques.
    fn register(&mut self, broker: Option<i32>, votes: Vec<(R, Waiter)>) -> Vec<(usize, R)> {
        let number = self.next_round;
        self.next_round += 1;
        let (mut records, mut waiters) = (Vec::with_capacity(votes.len()), Vec::with_capacity(votes.len()));
        for (index, (record, waiter)) in votes.into_iter().enumerate() {
            records.push((number << INDEX_BITS | index, record));
            waiters.push(Some(waiter));
        }
        let (votes, outcomes) = (waiters.len(), Vec::with_capacity(waiters.len()));
        let round = Round { broker, begun: Instant::now(), is_overdue: false, waiters, votes, outcomes };
        self.rounds.insert(number, round);
        records
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
