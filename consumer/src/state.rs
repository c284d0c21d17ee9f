//! How far each partition is and what holds it up, for `/health` and the operator.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use votes::{Offset, Partition};

/// Counting that is further behind than this is told as degraded.
const BEHIND: Duration = Duration::from_secs(10);

/// The partitions that are this consumer's.
#[derive(Clone, Default)]
pub(crate) struct States(Arc<Mutex<BTreeMap<Partition, State>>>);

#[derive(Default)]
struct State {
    trouble: Option<String>,
    position: Option<Offset>,
    /// How old the last counted vote was, and when it was counted.
    last: Option<(Duration, Instant)>,
    lag: u64,
}

impl State {
    /// How old the oldest vote is that is not counted yet, or more than that.
    fn age(&self) -> Duration {
        match self.last {
            Some((age, at)) if self.lag > 0 => age.max(at.elapsed()),
            _ => Duration::ZERO,
        }
    }
}

impl States {
    fn states(&self) -> MutexGuard<'_, BTreeMap<Partition, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition is counted from this position on.
    pub(crate) fn begin(&self, partition: Partition, at: Offset) {
        let last = Some((Duration::ZERO, Instant::now()));
        self.states().insert(partition, State { position: Some(at), last, ..State::default() });
    }

    /// It is counted up to this position; the last vote was so old.
    pub(crate) fn counted(&self, partition: Partition, to: Offset, age: Duration) {
        if let Some(state) = self.states().get_mut(&partition) {
            state.position = Some(to);
            state.last = Some((age, Instant::now()));
        }
    }

    /// Nothing can be counted for now.
    pub(crate) fn trouble(&self, partition: Partition, problem: String) {
        self.states().entry(partition).or_default().trouble = Some(problem);
    }

    /// It is no longer this consumer's.
    pub(crate) fn forget(&self, partition: Partition) {
        self.states().remove(&partition);
    }

    /// How far the partitions are that have begun.
    pub(crate) fn positions(&self) -> Vec<(Partition, Offset)> {
        self.states().iter().filter_map(|(partition, state)| Some((*partition, state.position?))).collect()
    }

    /// The log of a partition ends here. Returns how many of its records are not counted yet, if it has begun.
    pub(crate) fn lag(&self, partition: Partition, end: Offset) -> Option<u64> {
        let mut states = self.states();
        let state = states.get_mut(&partition)?;
        state.lag = end.0.saturating_sub(state.position?.0);
        Some(state.lag)
    }

    /// The first partition's trouble, and how many have some; else how far counting is behind.
    pub(crate) fn problem(&self) -> Option<String> {
        let states = self.states();
        let troubles: Vec<&String> = states.values().filter_map(|state| state.trouble.as_ref()).collect();
        match troubles.as_slice() {
            [] => {}
            [only] => return Some((*only).clone()),
            [first, ..] => {
                return Some(format!("{} partitions are not counted; the first: {first}", troubles.len()));
            }
        }
        let age = states.values().map(State::age).max().unwrap_or_default();
        let waiting: u64 = states.values().map(|state| state.lag).sum();
        (age > BEHIND).then(|| format!("counting is {} s behind, and {waiting} votes wait", age.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(3);

    #[test]
    fn counting_that_is_behind_is_told_until_it_has_caught_up() {
        let states = States::default();
        states.begin(P, Offset(0));
        states.lag(P, Offset(500));
        assert_eq!(states.problem(), None, "it has just begun");
        states.counted(P, Offset(100), Duration::from_secs(61));
        assert_eq!(states.lag(P, Offset(500)), Some(400));
        assert_eq!(states.problem().unwrap(), "counting is 61 s behind, and 400 votes wait");
        states.counted(P, Offset(500), Duration::from_secs(61));
        assert_eq!(states.lag(P, Offset(500)), Some(0));
        assert_eq!(states.problem(), None, "old votes that are counted wait no longer");
    }

    #[test]
    fn trouble_is_told_until_the_partition_begins_again() {
        let states = States::default();
        states.trouble(P, "no tallies".to_owned());
        assert_eq!(states.problem().unwrap(), "no tallies");
        states.trouble(Partition(4), "no tallies".to_owned());
        assert_eq!(states.problem().unwrap(), "2 partitions are not counted; the first: no tallies");
        states.forget(Partition(4));
        states.begin(P, Offset(7));
        assert_eq!((states.problem(), states.positions()), (None, vec![(P, Offset(7))]));
    }
}
