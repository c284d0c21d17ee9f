//! Up to which moment it is known that every accepted vote is counted.
//!
//! A vote is stamped at its door and then put on the log, so of a moment that is a while ago every vote is below the log's
//! ends as they are now. Once counting has passed those ends, in each partition, nothing of that moment is still to come.
//! Sums over partitions would not do: one may be ahead by as much as another is behind.

use std::{collections::VecDeque, time::Duration};

use votes::{Offset, UnixMillis};

/// The longest way of a vote from its door's clock onto the log: doors answer within two seconds, and the rest is for clocks
/// that differ. What comes later was refused to its voter.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// The most marks that wait for counting.
const MOST_WAITING: usize = 512;

/// Where the log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Votes accepted before this moment are below the ends.
    pub(crate) before: UnixMillis,
    /// Of each partition.
    ends: Vec<Offset>,
}

impl Mark {
    /// The log's ends, that were asked for after `asked_at`.
    pub(crate) fn new(asked_at: UnixMillis, ends: Vec<Offset>) -> Self {
        let on_its_way = i64::try_from(ON_ITS_WAY.as_millis()).unwrap_or(i64::MAX);
        Self { before: UnixMillis(asked_at.0.saturating_sub(on_its_way)), ends }
    }

    /// Whether counting has passed it.
    pub(crate) fn is_passed(&self, positions: &[Offset]) -> bool {
        self.ends.len() == positions.len() && self.ends.iter().zip(positions).all(|(end, position)| position >= end)
    }
}

/// Marks, from when the log was looked at until counting has passed them.
#[derive(Default)]
pub(crate) struct Settlement {
    waiting: VecDeque<Mark>,
    settled: Option<Mark>,
}

impl Settlement {
    /// Adds what the log says, then takes what the tallies say: the latest mark that was passed. What was said first must
    /// be asked first.
    pub(crate) fn look(&mut self, mark: Mark, positions: &[Offset]) -> Option<Mark> {
        // Two who ask at the same time may come in either order.
        if self.waiting.back().is_none_or(|last| last.before < mark.before) {
            if self.waiting.len() >= MOST_WAITING {
                self.thin_out();
            }
            self.waiting.push_back(mark);
        }
        while let Some(mark) = self.waiting.pop_front_if(|mark| mark.is_passed(positions)) {
            self.settled = Some(mark);
        }
        // Tallies that were lost are behind what was settled, until they are counted again.
        self.settled.clone().filter(|mark| mark.is_passed(positions))
    }

    /// Half of the marks do, while counting stands still.
    fn thin_out(&mut self) {
        let mut is_kept = false;
        self.waiting.retain(|_| {
            is_kept = !is_kept;
            is_kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets<const N: usize>(offsets: [u64; N]) -> Vec<Offset> {
        offsets.map(Offset).into()
    }

    fn look(settlement: &mut Settlement, at: i64, ends: [u64; 2], positions: [u64; 2]) -> Option<i64> {
        let mark = Mark::new(UnixMillis(at), offsets(ends));
        settlement.look(mark, &offsets(positions)).map(|mark| mark.before.0)
    }

    #[test]
    fn a_moment_is_settled_once_each_partition_is_counted_that_far() {
        let mut settlement = Settlement::default();
        assert_eq!(look(&mut settlement, 10_000, [5, 5], [5, 4]), None);
        // As many as there were, and yet one of them is missing.
        assert_eq!(look(&mut settlement, 10_100, [9, 6], [6, 4]), None);
        assert_eq!(look(&mut settlement, 10_200, [9, 7], [7, 5]), Some(7_000));
        assert_eq!(look(&mut settlement, 10_300, [9, 7], [9, 7]), Some(7_300));
    }

    #[test]
    fn lost_tallies_settle_nothing_until_they_are_back() {
        let mut settlement = Settlement::default();
        assert_eq!(look(&mut settlement, 10_000, [5, 5], [5, 5]), Some(7_000));
        assert_eq!(look(&mut settlement, 10_100, [5, 5], [0, 0]), None);
        assert_eq!(look(&mut settlement, 10_200, [5, 5], [5, 5]), Some(7_200));
    }

    #[test]
    fn marks_are_bounded_while_counting_stands_still() {
        let mut settlement = Settlement::default();
        for at in 0..10_000 {
            let end = u64::try_from(at).unwrap();
            assert_eq!(look(&mut settlement, at, [end + 1, 0], [0, 0]), None);
            assert!(settlement.waiting.len() <= MOST_WAITING);
        }
        // The first is kept.
        assert_eq!(look(&mut settlement, 10_000, [10_001, 0], [1, 0]), Some(-3_000));
    }
}
