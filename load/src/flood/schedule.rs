//! Determines when each vote is due.
//!
//! Votes are numbered through the whole flood: vote `i` is due at `start + i / rate`, independent of the worker that
//! sends it. The workers take batches of consecutive votes in turn, so every worker has the same number of batches, or
//! one less. A batch is the votes of one request: many for `rest-batch`, one for the other protocols.

use std::time::{Duration, Instant};

use super::rate::Rate;

/// How long a late worker may continue to send votes after the end of the schedule. This covers inexact timers, the
/// scheduler and a short stall. A worker that is even later is too slow: its remaining votes are not sent, because they
/// would make the flood longer.
const LATE_GRACE: Duration = Duration::from_secs(1);

/// The schedule of the whole flood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    end: Instant,
    rate: Rate,
    /// The number of votes in a batch.
    batch_size: u64,
}

impl Schedule {
    pub(super) fn new(start: Instant, length: Duration, rate: Rate, batch_size: u64) -> Self {
        Self { start, end: start + length, rate, batch_size }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn end(&self) -> Instant {
        self.end
    }

    /// Returns the number of votes of the whole flood; `None` in a closed loop.
    pub(super) fn total(&self) -> Option<u64> {
        match self.rate {
            // The multiplication may round a whole number up. Subtracting a millionth avoids one vote too many then.
            // The result is positive, and exact below 2^53.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Rate::PerSecond(rate) => Some((rate * (self.end - self.start).as_secs_f64() - 1e-6).ceil().max(1.0) as u64),
            Rate::Max => None,
        }
    }

    /// Returns the schedule of one of `workers` workers. `worker` is its number, from 0.
    pub(super) fn of_worker(self, worker: usize, workers: usize) -> WorkerSchedule {
        let total = self.total().unwrap_or(u64::MAX);
        let (next, stride) = (worker as u64 * self.batch_size, workers as u64 * self.batch_size);
        WorkerSchedule { schedule: self, total, next, stride }
    }
}

/// The schedule of one worker.
#[derive(Debug)]
pub(super) struct WorkerSchedule {
    schedule: Schedule,
    /// The number of votes of the whole flood.
    total: u64,
    /// The number of the first vote in the worker's next batch.
    next: u64,
    /// The distance from one batch of the worker to its next batch, in votes.
    stride: u64,
}

impl WorkerSchedule {
    /// Returns whether votes are due at fixed times, which do not depend on the responses.
    pub(super) fn is_open_loop(&self) -> bool {
        self.schedule.rate != Rate::Max
    }

    /// Returns the time at which to send the next batch: the due time of its last vote. Returns `None` if the schedule
    /// has ended.
    pub(super) fn next_batch_at(&self, now: Instant) -> Option<Instant> {
        match self.schedule.rate {
            Rate::PerSecond(rate) if self.next < self.total && now <= self.schedule.end + LATE_GRACE => {
                Some(self.due(self.batch_end() - 1, rate))
            }
            Rate::Max if now < self.schedule.end => Some(now),
            _ => None,
        }
    }

    /// Takes the next batch. Returns the due time of each of its votes.
    pub(super) fn take_batch(&mut self, now: Instant) -> impl Iterator<Item = Instant> + use<> {
        let batch = match self.schedule.rate {
            Rate::PerSecond(_) => self.next..self.batch_end(),
            Rate::Max => 0..self.schedule.batch_size,
        };
        self.next += self.stride;
        let (rate, start) = (self.schedule.rate, self.schedule.start);
        batch.map(move |vote| match rate {
            Rate::PerSecond(rate) => due(start, vote, rate),
            Rate::Max => now,
        })
    }

    /// Returns the number after the last vote of the next batch.
    fn batch_end(&self) -> u64 {
        self.total.min(self.next + self.schedule.batch_size)
    }

    fn due(&self, vote: u64, rate: f64) -> Instant {
        due(self.schedule.start, vote, rate)
    }
}

fn due(start: Instant, vote: u64, rate: f64) -> Instant {
    start + Duration::from_secs_f64(vote as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the due times of each worker's votes, relative to the start.
    fn due_times(schedule: Schedule, workers: usize) -> Vec<Vec<Duration>> {
        let of_worker = |worker| {
            let mut worker = schedule.of_worker(worker, workers);
            let mut times = Vec::new();
            while worker.next_batch_at(schedule.start).is_some() {
                times.extend(worker.take_batch(schedule.start).map(|due| due - schedule.start));
            }
            times
        };
        (0..workers).map(of_worker).collect()
    }

    #[test]
    fn votes_are_due_at_equal_intervals_and_workers_take_them_in_turn() {
        let schedule = Schedule::new(Instant::now(), SECOND, Rate::PerSecond(10.0), 1);
        let ms = |list: &[u64]| list.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(due_times(schedule, 3), [ms(&[0, 300, 600, 900]), ms(&[100, 400, 700]), ms(&[200, 500, 800])]);
    }

    #[test]
    fn each_vote_is_due_once_for_any_number_of_workers_and_any_batch_size() {
        for (batch_size, workers) in [(1, 1), (1, 64), (7, 4), (500, 3), (2000, 2)] {
            let schedule = Schedule::new(Instant::now(), 3 * SECOND, Rate::PerSecond(333.0), batch_size);
            let mut all = due_times(schedule, workers).concat();
            all.sort();
            assert_eq!(all.len(), 999, "batches of {batch_size}, {workers} workers");
            let expected: Vec<_> = (0..999_u32).map(|i| Duration::from_secs_f64(f64::from(i) / 333.0)).collect();
            assert_eq!(all, expected, "batches of {batch_size}, {workers} workers");
        }
    }

    #[test]
    fn a_batch_is_sent_when_its_last_vote_is_due() {
        let start = Instant::now();
        let worker = Schedule::new(start, SECOND, Rate::PerSecond(100.0), 10).of_worker(1, 2);
        assert_eq!(worker.next_batch_at(start), Some(start + Duration::from_millis(190)));
    }

    #[test]
    fn a_late_worker_keeps_its_due_times_and_stops_soon_after_the_end() {
        let start = Instant::now();
        let mut worker = Schedule::new(start, SECOND, Rate::PerSecond(2.0), 1).of_worker(0, 1);
        assert_eq!(worker.take_batch(start + SECOND).collect::<Vec<_>>(), [start]);
        assert_eq!(worker.next_batch_at(start + SECOND), Some(start + SECOND / 2), "due before the end, a little late");
        assert_eq!(worker.next_batch_at(start + 3 * SECOND), None, "far too late");
    }

    #[test]
    fn the_votes_of_a_closed_loop_are_due_at_once_until_the_end() {
        let start = Instant::now();
        let schedule = Schedule::new(start, SECOND, Rate::Max, 3);
        let mut worker = schedule.of_worker(5, 8);
        let now = start + SECOND / 2;
        assert_eq!(worker.next_batch_at(now), Some(now));
        assert_eq!(worker.take_batch(now).collect::<Vec<_>>(), [now; 3]);
        assert_eq!(worker.next_batch_at(start + SECOND), None);
        assert_eq!(schedule.total(), None);
    }

    #[test]
    fn whole_products_are_not_rounded_up() {
        let total = |rate, length| Schedule::new(Instant::now(), length, Rate::PerSecond(rate), 1).total();
        assert_eq!(total(0.1, 3 * 10 * SECOND), Some(3));
        assert_eq!(total(10_000.0, 60 * SECOND), Some(600_000));
        assert_eq!(total(0.1, SECOND), Some(1));
        assert_eq!(total(1.0, SECOND * 3 / 2), Some(2));
    }
}
