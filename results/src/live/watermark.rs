//! The watermark is the time up to which all accepted votes are counted.
//!
//! A producer gives a vote the time of the producer's clock, and then publishes the vote. So after some seconds, all
//! votes of a time are on the log, below the current ends of the log. After counting has passed these ends in every
//! partition, all votes of that time are counted. The sum of the positions would not be enough: one partition may be
//! ahead by the same number of votes by which another partition is behind.

use std::{collections::VecDeque, time::Duration};

use votes::{Offset, UnixMillis};

/// The longest time from the acceptance of a vote until the vote is on the log. Producers respond within two seconds,
/// and the rest is for clocks that differ. A vote that takes longer was not acknowledged to the client.
const MAX_PUBLISH_DELAY: Duration = Duration::from_secs(3);

/// The maximum number of watermarks that wait until counting has passed them.
const MAX_WATERMARKS: usize = 512;

/// A time, and the ends of the log that counting must pass before every vote of that time is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// Votes that were accepted before this time are below the ends.
    pub(crate) before: UnixMillis,
    /// The end of the log in each partition.
    ends: Vec<Offset>,
}

impl Watermark {
    /// Creates a watermark from the ends of the log, which were requested after `requested_at`.
    pub(crate) fn new(requested_at: UnixMillis, ends: Vec<Offset>) -> Self {
        let delay = i64::try_from(MAX_PUBLISH_DELAY.as_millis()).unwrap_or(i64::MAX);
        Self { before: UnixMillis(requested_at.0.saturating_sub(delay)), ends }
    }

    /// Returns whether counting has passed the ends. `positions` has the position of the tallies in each partition.
    pub(crate) fn is_passed(&self, positions: &[Offset]) -> bool {
        self.ends.len() == positions.len() && self.ends.iter().zip(positions).all(|(end, position)| position >= end)
    }
}

/// The watermarks that wait until counting has passed them, and the latest watermark that counting has passed.
#[derive(Default)]
pub(crate) struct Watermarks {
    waiting: VecDeque<Watermark>,
    settled: Option<Watermark>,
}

impl Watermarks {
    /// Adds a watermark, and returns the latest watermark that counting has passed. The caller must request the
    /// positions after the ends of the watermark.
    pub(crate) fn advance(&mut self, watermark: Watermark, positions: &[Offset]) -> Option<Watermark> {
        // Concurrent calls may add watermarks in another order than their times.
        if self.waiting.back().is_none_or(|last| last.before < watermark.before) {
            if self.waiting.len() >= MAX_WATERMARKS {
                self.drop_every_second();
            }
            self.waiting.push_back(watermark);
        }
        while let Some(watermark) = self.waiting.pop_front_if(|watermark| watermark.is_passed(positions)) {
            self.settled = Some(watermark);
        }
        // Tallies that lost data are behind the settled watermark until the votes are counted again.
        self.settled.clone().filter(|watermark| watermark.is_passed(positions))
    }

    /// Drops every second watermark, while counting does not advance.
    fn drop_every_second(&mut self) {
        let mut is_retained = false;
        self.waiting.retain(|_| {
            is_retained = !is_retained;
            is_retained
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets<const N: usize>(offsets: [u64; N]) -> Vec<Offset> {
        offsets.map(Offset).into()
    }

    fn advance(watermarks: &mut Watermarks, at: i64, ends: [u64; 2], positions: [u64; 2]) -> Option<i64> {
        let watermark = Watermark::new(UnixMillis(at), offsets(ends));
        watermarks.advance(watermark, &offsets(positions)).map(|watermark| watermark.before.0)
    }

    #[test]
    fn a_time_is_settled_once_every_partition_is_counted_up_to_it() {
        let mut watermarks = Watermarks::default();
        assert_eq!(advance(&mut watermarks, 10_000, [5, 5], [5, 4]), None);
        // The positions have the same sum as the first ends, but one vote of the second partition is not counted.
        assert_eq!(advance(&mut watermarks, 10_100, [9, 6], [6, 4]), None);
        assert_eq!(advance(&mut watermarks, 10_200, [9, 7], [7, 5]), Some(7_000));
        assert_eq!(advance(&mut watermarks, 10_300, [9, 7], [9, 7]), Some(7_300));
    }

    #[test]
    fn lost_tallies_settle_nothing_until_they_are_counted_again() {
        let mut watermarks = Watermarks::default();
        assert_eq!(advance(&mut watermarks, 10_000, [5, 5], [5, 5]), Some(7_000));
        assert_eq!(advance(&mut watermarks, 10_100, [5, 5], [0, 0]), None);
        assert_eq!(advance(&mut watermarks, 10_200, [5, 5], [5, 5]), Some(7_200));
    }

    #[test]
    fn watermarks_are_bounded_while_counting_does_not_advance() {
        let mut watermarks = Watermarks::default();
        for at in 0..10_000 {
            let end = u64::try_from(at).unwrap();
            assert_eq!(advance(&mut watermarks, at, [end + 1, 0], [0, 0]), None);
            assert!(watermarks.waiting.len() <= MAX_WATERMARKS);
        }
        // The first watermark was not dropped.
        assert_eq!(advance(&mut watermarks, 10_000, [10_001, 0], [1, 0]), Some(-3_000));
    }
}
