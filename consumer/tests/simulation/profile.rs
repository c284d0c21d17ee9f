//! What a history is like: its parameters, drawn from the seed.

use std::time::Duration;

use rand::{RngExt as _, rngs::SmallRng};

use crate::{mutants::Mutant, world::Faults};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The broken variant, or `None` for the production algorithm.
    pub(crate) mutant: Option<Mutant>,
    /// Whether the log has thousands of votes, so that the ledger is read in several chunks.
    pub(crate) is_long: bool,
    pub(crate) is_traced: bool,
}

/// What may happen instead of the execution of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Append,
    Kill,
    Pause,
    Resume,
    MovePartition,
    Join,
    Leave,
    Wait,
    LoseFetch,
    StallSnapshot,
    BackUpTallies,
    RollTalliesBack,
    WipeTallies,
    BackUpLedger,
    RestoreLedger,
    ChangeRules,
    TrimLog,
    Expire,
    Audit,
}

/// The events with their weights.
const EVENTS: [(Event, usize); 19] = [
    (Event::Append, 5),
    (Event::Kill, 6),
    (Event::Pause, 4),
    (Event::Resume, 3),
    (Event::MovePartition, 3),
    (Event::Join, 1),
    (Event::Leave, 2),
    (Event::Wait, 1),
    (Event::LoseFetch, 1),
    (Event::StallSnapshot, 1),
    (Event::BackUpTallies, 3),
    (Event::RollTalliesBack, 2),
    (Event::WipeTallies, 1),
    (Event::BackUpLedger, 3),
    (Event::RestoreLedger, 2),
    (Event::ChangeRules, 1),
    (Event::TrimLog, 2),
    (Event::Expire, 8),
    (Event::Audit, 1),
];

/// The parameters of a history. Each history has only some kinds of events, because one kind could hide the effect of
/// another.
pub(crate) struct Profile {
    pub(crate) partitions: u16,
    /// The number of consumer groups that count the same log into the same stores. With two, each partition always has
    /// two consumers.
    pub(crate) groups: usize,
    /// The number of records of each partition at the start.
    pub(crate) first_votes: u64,
    /// The number of steps with faults: executed operations and events.
    pub(crate) steps: u32,
    /// The simulated time of a step.
    pub(crate) step_time: Duration,
    /// The probability that a step is an event.
    pub(crate) event_probability: f64,
    /// Each event of this history, as many times as its weight.
    pub(crate) event_pool: Vec<Event>,
    /// The maximum number of operations of one partition's task in a row.
    pub(crate) max_consecutive_operations: u32,
    /// The maximum number of records of a batch.
    pub(crate) max_batch: usize,
    /// The probability that an appended record is a duplicate.
    pub(crate) duplicates: f64,
    /// The probability that an appended record is invalid.
    pub(crate) invalid: f64,
    /// The probability of a gap before an appended record.
    pub(crate) gaps: f64,
    pub(crate) faults: Faults,
    /// The retention of the ledger, if votes expire by age. Otherwise they expire by size.
    pub(crate) age: Option<Duration>,
}

impl Profile {
    pub(crate) fn draw(rng: &mut SmallRng, Plan { is_long, mutant, .. }: Plan) -> Self {
        let mut sometimes = |probability: f64, value: f64| if rng.random_bool(probability) { value } else { 0.0 };
        let faults =
            Faults { refused: sometimes(0.5, 0.03), lost: sometimes(0.5, 0.05), partial: sometimes(0.5, 0.15) };
        let (duplicates, invalid, gaps) = (sometimes(0.8, 0.4), sometimes(0.4, 0.1), sometimes(0.5, 0.3));
        let mut event_pool = vec![Event::Append];
        for (event, weight) in EVENTS {
            if rng.random_bool(0.7) {
                event_pool.extend(std::iter::repeat_n(event, weight));
            }
        }
        let ages = [1_000, 2_000, 5_000, 15_000].map(Duration::from_millis);
        let (age, has_age) = (ages[rng.random_range(0..4)], rng.random_bool(0.5));
        let has_age = mutant.map_or(has_age, |mutant| Mutant::OF_AGE.contains(&mutant));
        let profile = Self {
            partitions: rng.random_range(1..=2),
            groups: if rng.random_bool(0.7) { 2 } else { 1 },
            first_votes: rng.random_range(0..8),
            steps: rng.random_range(20..200),
            step_time: Duration::from_millis([1, 20, 100, 250][rng.random_range(0..4)]),
            event_probability: [0.05, 0.15, 0.3][rng.random_range(0..3)],
            event_pool,
            max_consecutive_operations: [1, 4, 16][rng.random_range(0..3)],
            max_batch: [1, 2, 3, 5, 8][rng.random_range(0..5)],
            duplicates,
            invalid,
            gaps,
            faults,
            age: has_age.then_some(age),
        };
        if mutant.is_some_and(|mutant| Mutant::OF_EXPIRED_VOTES.contains(&mutant)) {
            return profile.with_expiry();
        }
        if mutant.is_some_and(|mutant| Mutant::OF_RESTORED_LEDGERS.contains(&mutant)) {
            return profile.with_restores();
        }
        if is_long {
            let max_consecutive_operations = 16;
            return Self { partitions: 1, first_votes: 3_500, max_consecutive_operations, max_batch: 2_000, ..profile };
        }
        profile
    }

    /// Returns a profile in which votes that have duplicates expire often, while two consumers count them.
    fn with_expiry(mut self) -> Self {
        self.event_pool.extend(std::iter::repeat_n(Event::Expire, 16));
        self.event_pool.extend([Event::Pause, Event::Resume, Event::Append].repeat(4));
        Self { groups: 2, duplicates: 0.4, steps: self.steps + 100, event_probability: 0.3, ..self }
    }

    /// Returns a profile in which the ledger is often restored under idle consumers, and a vote arrives soon after.
    fn with_restores(mut self) -> Self {
        self.event_pool.retain(|event| !matches!(event, Event::TrimLog | Event::Expire));
        self.event_pool.extend([Event::BackUpLedger, Event::RestoreLedger, Event::Append].repeat(4));
        Self { duplicates: 0.0, event_probability: 0.15, ..self }
    }

    /// Whether the history has this kind of event.
    pub(crate) fn has(&self, event: Event) -> bool {
        self.event_pool.contains(&event)
    }
}
