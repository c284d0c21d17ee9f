//! The state of each partition that this consumer counts, for `/health` and the metrics.
//!
//! The task of a partition owns the partition's state: [`States::claim`] returns a [`PartitionState`], and when the task
//! drops it, the state ends everywhere. So nothing of a revoked partition stays in `/health`, in the lag or in the
//! metrics, however long its task needs to end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use votes::{Offset, Partition};

use crate::meters;

/// If the oldest uncounted vote may be older than this, the check `counting` fails.
const MAX_COUNTING_DELAY: Duration = Duration::from_secs(10);

/// The states of the partitions that this consumer counts.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<Mutex<BTreeMap<Partition, State>>>);

struct State {
    /// When the task began.
    since: Instant,
    /// Why the partition can't be counted.
    error: Option<String>,
    /// The position from which the partition is counted on, or `None` until counting has begun.
    position: Option<Offset>,
    /// The age that the latest vote of the last batch had when it was counted, and the time at which it was counted.
    last_counted: Option<(Duration, Instant)>,
    /// The number of records that are not counted yet.
    lag: u64,
    /// Since when records wait, if they do.
    waiting_since: Option<Instant>,
}

impl State {
    /// Returns an upper bound of the age of the oldest vote that is not counted yet.
    fn age(&self) -> Duration {
        match self.last_counted {
            Some((age, at)) if self.lag > 0 => age.max(at.elapsed()),
            _ => Duration::ZERO,
        }
    }
}

/// The state of one partition, owned by its task. Dropping it removes the partition from `/health` and the metrics.
pub(crate) struct PartitionState {
    states: States,
    partition: Partition,
}

impl PartitionState {
    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.states.lock().get_mut(&self.partition) {
            change(state);
        }
    }

    /// Records that counting begins at this position. This clears the error.
    pub(crate) fn begin(&self, at: Offset) {
        let last_counted = Some((Duration::ZERO, Instant::now()));
        self.change(|state| {
            (state.error, state.position, state.last_counted) = (None, Some(at), last_counted);
            state.waiting_since = (state.lag > 0).then(Instant::now);
        });
        meters::set_halted(self.partition, false);
    }

    /// Records that the partition is counted up to this position. `age` is the age of the latest vote of the batch.
    pub(crate) fn advance(&self, to: Offset, age: Duration) {
        self.change(|state| {
            state.lag = state.lag.saturating_sub(to.0.saturating_sub(state.position.unwrap_or(to).0));
            state.position = Some(to);
            state.last_counted = Some((age, Instant::now()));
            state.waiting_since = (state.lag > 0).then(Instant::now);
        });
    }

    /// Records why the partition can't be counted. `is_halted` is true if an operator must repair it.
    pub(crate) fn set_error(&self, error: String, is_halted: bool) {
        self.change(|state| state.error = Some(error));
        meters::set_halted(self.partition, is_halted);
    }

    /// Returns how many records wait, if they have waited for at least `duration` and none was counted meanwhile.
    pub(crate) fn waiting_for(&self, duration: Duration) -> Option<u64> {
        let states = self.states.lock();
        let state = states.get(&self.partition)?;
        state.waiting_since.is_some_and(|since| since.elapsed() >= duration).then_some(state.lag)
    }
}

impl Drop for PartitionState {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The partition is not counted any more, and `/health` must show it until the partition is assigned again.
            self.change(|state| state.error = Some(format!("the task of partition {} panicked", self.partition)));
            return;
        }
        let mut states = self.states.lock();
        states.remove(&self.partition);
        // Under the lock, so that a measurement of the lag that runs now can't report this partition again.
        meters::end_partition(self.partition);
        meters::set_assigned_partitions(states.len());
    }
}

impl States {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Partition, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the state of a partition. The former task of the partition must have ended.
    pub(crate) fn claim(&self, partition: Partition) -> PartitionState {
        let mut states = self.lock();
        let state = State {
            since: Instant::now(),
            error: None,
            position: None,
            last_counted: None,
            lag: 0,
            waiting_since: None,
        };
        states.insert(partition, state);
        meters::begin_partition(partition);
        meters::set_assigned_partitions(states.len());
        drop(states);
        PartitionState { states: self.clone(), partition }
    }

    /// Returns the partitions whose counting has begun.
    pub(crate) fn partitions(&self) -> Vec<Partition> {
        let states = self.lock();
        states.iter().filter(|(_, state)| state.position.is_some()).map(|(partition, _)| *partition).collect()
    }

    /// Returns the partitions that are being counted, each with the position from which it is counted on.
    pub(crate) fn positions(&self) -> Vec<(Partition, Offset)> {
        let states = self.lock();
        let position = |(partition, state): (&Partition, &State)| {
            state.position.filter(|_| state.error.is_none()).map(|position| (*partition, position))
        };
        states.iter().filter_map(position).collect()
    }

    /// Updates the lag of a partition, from the end of its log, unless the partition has left meanwhile.
    pub(crate) fn update_lag(&self, partition: Partition, end: Offset) {
        let mut states = self.lock();
        if let Some(state) = states.get_mut(&partition)
            && let Some(position) = state.position
        {
            // The partition may have been counted further than `end` while its end was read.
            state.lag = end.0.saturating_sub(position.0);
            state.waiting_since = (state.lag > 0).then(|| state.waiting_since.unwrap_or_else(Instant::now));
            meters::set_lag(partition, state.lag);
        }
    }

    /// Describes the current problem, if there is one: the first error of a partition, and the number of partitions
    /// with an error. Without errors, it is a problem if counting has not begun or is behind, for more than
    /// [`MAX_COUNTING_DELAY`].
    pub(crate) fn problem(&self) -> Option<String> {
        let states = self.lock();
        let errors: Vec<&String> = states.values().filter_map(|state| state.error.as_ref()).collect();
        match errors.as_slice() {
            [] => {}
            [only] => return Some((*only).clone()),
            [first, ..] => {
                return Some(format!("{} partitions are not counted; the first: {first}", errors.len()));
            }
        }
        let not_begun =
            |(_, state): &(&Partition, &State)| state.position.is_none() && state.since.elapsed() > MAX_COUNTING_DELAY;
        if let Some((partition, state)) = states.iter().find(not_begun) {
            let elapsed = state.since.elapsed().as_secs();
            return Some(format!("partition {partition} was assigned {elapsed} s ago, and its counting has not begun"));
        }
        let age = states.values().map(State::age).max().unwrap_or_default();
        let waiting: u64 = states.values().map(|state| state.lag).sum();
        (age > MAX_COUNTING_DELAY).then(|| format!("counting is {} s behind, and {waiting} votes wait", age.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(3);

    #[test]
    fn counting_that_is_behind_is_a_problem_until_it_has_caught_up() {
        let states = States::default();
        let state = states.claim(P);
        states.update_lag(P, Offset(500));
        assert_eq!(states.problem(), None, "it has not begun");
        state.begin(Offset(0));
        states.update_lag(P, Offset(500));
        assert_eq!(states.problem(), None, "it has just begun");
        state.advance(Offset(100), Duration::from_secs(61));
        assert_eq!(states.problem().unwrap(), "counting is 61 s behind, and 400 votes wait");
        state.advance(Offset(500), Duration::from_secs(61));
        assert_eq!(states.problem(), None, "old votes that are counted do not wait");
    }

    #[test]
    fn an_error_is_a_problem_until_the_partition_begins_again() {
        let states = States::default();
        let (third, fourth) = (states.claim(P), states.claim(Partition(4)));
        third.set_error("no tallies".to_owned(), false);
        assert_eq!(states.problem().unwrap(), "no tallies");
        fourth.set_error("no tallies".to_owned(), false);
        assert_eq!(states.problem().unwrap(), "2 partitions are not counted; the first: no tallies");
        drop(fourth);
        third.begin(Offset(7));
        assert_eq!((states.problem(), states.partitions()), (None, vec![P]));
    }

    #[tokio::test(start_paused = true)]
    async fn counting_that_does_not_begin_is_a_problem() {
        let states = States::default();
        let state = states.claim(P);
        assert_eq!(states.problem(), None);
        tokio::time::advance(Duration::from_secs(11)).await;
        let problem = "partition 3 was assigned 11 s ago, and its counting has not begun";
        assert_eq!(states.problem().unwrap(), problem);
        state.begin(Offset(0));
        assert_eq!(states.problem(), None);
    }

    #[test]
    fn nothing_of_a_partition_stays_after_its_task() {
        let states = States::default();
        let state = states.claim(P);
        state.begin(Offset(0));
        state.set_error("no tallies".to_owned(), true);
        drop(state);
        states.update_lag(P, Offset(500));
        assert_eq!((states.problem(), states.partitions()), (None, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn records_that_are_not_counted_wait_since_they_arrived() {
        let states = States::default();
        let state = states.claim(P);
        let limit = Duration::from_secs(30);
        state.begin(Offset(0));
        tokio::time::advance(limit).await;
        assert_eq!(state.waiting_for(limit), None, "the log has no records");
        states.update_lag(P, Offset(2));
        assert_eq!(state.waiting_for(limit), None, "the records have just arrived");
        tokio::time::advance(limit).await;
        states.update_lag(P, Offset(2));
        assert_eq!(state.waiting_for(limit), Some(2));
        state.advance(Offset(1), Duration::ZERO);
        assert_eq!(state.waiting_for(limit), None, "a record was just counted");
        tokio::time::advance(limit).await;
        assert_eq!(state.waiting_for(limit), Some(1));
    }
}
