//! When each vote is due.
//!
//! Votes are numbered through the whole flood; vote `i` is due at `start + i / rate`, whoever sends it. Workers take
//! units of consecutive votes in turn (a unit is one vote, or a batch), so the load stays even however many they are.

use std::time::{Duration, Instant};

use super::args::Rate;

/// How long after the end votes that were due before it may still be sent. It covers timers, the scheduler and a
/// short stall; a worker that is later than that is behind for real, and sending on would stretch the flood.
const GRACE: Duration = Duration::from_secs(1);

/// The plan of the whole flood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Instant,
    end: Instant,
    rate: Rate,
    /// Votes of a unit.
    unit: u64,
}

impl Schedule {
    pub(super) fn new(start: Instant, length: Duration, rate: Rate, unit: u64) -> Self {
        Self { start, end: start + length, rate, unit }
    }

    pub(super) fn start(&self) -> Instant {
        self.start
    }

    pub(super) fn end(&self) -> Instant {
        self.end
    }

    /// How many votes are due in all; none in a closed loop.
    pub(super) fn total(&self) -> Option<u64> {
        match self.rate {
            // The subtraction undoes what the multiplication may add to a whole number. Positive, and exact below 2^53.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Rate::PerSecond(rate) => Some((rate * (self.end - self.start).as_secs_f64() - 1e-6).ceil().max(1.0) as u64),
            Rate::Max => None,
        }
    }

    /// The turns of one of so many workers.
    pub(super) fn turns(self, worker: usize, workers: usize) -> Turns {
        let total = self.total().unwrap_or(u64::MAX);
        Turns { schedule: self, total, next: worker as u64 * self.unit, stride: workers as u64 * self.unit }
    }
}

/// One worker's turns.
#[derive(Debug)]
pub(super) struct Turns {
    schedule: Schedule,
    total: u64,
    /// The number of the next unit's first vote.
    next: u64,
    stride: u64,
}

impl Turns {
    /// Whether votes are due by the clock, not by the answers.
    pub(super) fn is_open_loop(&self) -> bool {
        self.schedule.rate != Rate::Max
    }

    /// When the next unit is to be sent: when its last vote is due. None if no more is to be sent.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        match self.schedule.rate {
            Rate::PerSecond(rate) if self.next < self.total && now <= self.schedule.end + GRACE => {
                Some(self.due(self.unit_end() - 1, rate))
            }
            Rate::Max if now < self.schedule.end => Some(now),
            _ => None,
        }
    }

    /// Takes the next unit: the due time of each of its votes.
    pub(super) fn take(&mut self, now: Instant) -> impl Iterator<Item = Instant> + use<> {
        let unit = match self.schedule.rate {
            Rate::PerSecond(_) => self.next..self.unit_end(),
            Rate::Max => 0..self.schedule.unit,
        };
        self.next += self.stride;
        let (rate, start) = (self.schedule.rate, self.schedule.start);
        unit.map(move |vote| match rate {
            Rate::PerSecond(rate) => due(start, vote, rate),
            Rate::Max => now,
        })
    }

    fn unit_end(&self) -> u64 {
        self.total.min(self.next + self.schedule.unit)
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

    /// All due times of all workers, as offsets from the start, by worker.
    fn dues(schedule: Schedule, workers: usize) -> Vec<Vec<Duration>> {
        let drain = |worker| {
            let mut turns = schedule.turns(worker, workers);
            let mut dues = Vec::new();
            while turns.next_at(schedule.start).is_some() {
                dues.extend(turns.take(schedule.start).map(|due| due - schedule.start));
            }
            dues
        };
        (0..workers).map(drain).collect()
    }

    #[test]
    fn votes_are_evenly_due_and_workers_take_them_in_turn() {
        let schedule = Schedule::new(Instant::now(), SECOND, Rate::PerSecond(10.0), 1);
        let ms = |list: &[u64]| list.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(dues(schedule, 3), [ms(&[0, 300, 600, 900]), ms(&[100, 400, 700]), ms(&[200, 500, 800])]);
    }

    #[test]
    fn however_many_workers_and_whatever_the_unit_each_vote_is_due_once() {
        for (unit, workers) in [(1, 1), (1, 64), (7, 4), (500, 3), (2000, 2)] {
            let schedule = Schedule::new(Instant::now(), 3 * SECOND, Rate::PerSecond(333.0), unit);
            let mut all = dues(schedule, workers).concat();
            all.sort();
            assert_eq!(all.len(), 999, "units of {unit}, {workers} workers");
            let expected: Vec<_> = (0..999_u32).map(|i| Duration::from_secs_f64(f64::from(i) / 333.0)).collect();
            assert_eq!(all, expected, "units of {unit}, {workers} workers");
        }
    }

    #[test]
    fn a_unit_goes_out_when_its_last_vote_is_due() {
        let start = Instant::now();
        let turns = Schedule::new(start, SECOND, Rate::PerSecond(100.0), 10).turns(1, 2);
        assert_eq!(turns.next_at(start), Some(start + Duration::from_millis(190)));
    }

    #[test]
    fn a_late_worker_keeps_its_due_times_and_gives_up_soon_after_the_end() {
        let start = Instant::now();
        let mut turns = Schedule::new(start, SECOND, Rate::PerSecond(2.0), 1).turns(0, 1);
        assert_eq!(turns.take(start + SECOND).collect::<Vec<_>>(), [start]);
        assert_eq!(turns.next_at(start + SECOND), Some(start + SECOND / 2), "due before the end, a little late");
        assert_eq!(turns.next_at(start + 3 * SECOND), None, "far too late");
    }

    #[test]
    fn a_closed_loop_is_due_at_once_until_the_end() {
        let start = Instant::now();
        let schedule = Schedule::new(start, SECOND, Rate::Max, 3);
        let mut turns = schedule.turns(5, 8);
        let now = start + SECOND / 2;
        assert_eq!(turns.next_at(now), Some(now));
        assert_eq!(turns.take(now).collect::<Vec<_>>(), [now; 3]);
        assert_eq!(turns.next_at(start + SECOND), None);
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
