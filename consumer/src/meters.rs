//! What the consumer tells of itself at `/metrics`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use votes::{ContestId, DoorKind, LoggedVote, Partition, Standing, UnixMillis};

/// The most bands, over all contests, that are counted by name: each is a series a door. The rest is `other`.
const MOST_BANDS: usize = 100;

const OTHER: &str = "other";

/// The meters of counting, shared by all partitions.
#[derive(Clone)]
pub(crate) struct Meters(Arc<Shared>);

struct Shared {
    bands: Mutex<Bands>,
    duplicates: Counter,
    dead: Counter,
    reconciliations: Counter,
    records: Histogram,
    seconds: Histogram,
    delay: Histogram,
}

/// Counters by contest, band and door.
#[derive(Default)]
struct Bands {
    counters: HashMap<ContestId, HashMap<String, Doors>>,
    /// How many bands have counters of their own.
    named: usize,
}

type Doors = HashMap<DoorKind, Counter>;

impl Meters {
    pub(crate) fn new() -> Self {
        describe_counter!("ovation_counted_votes_total", "Votes counted by this process, by contest, band and door");
        describe_counter!("ovation_duplicate_votes_total", "Repeats of votes, not counted");
        describe_counter!("ovation_dead_letters_total", "Records that are no votes");
        describe_counter!("ovation_reconciliations_total", "How often the stores were elsewhere than was thought");
        describe_histogram!("ovation_batch_records", "Records of a batch");
        describe_histogram!("ovation_batch_seconds", Unit::Seconds, "How long counting a batch takes");
        describe_histogram!(
            "ovation_count_delay_seconds",
            Unit::Seconds,
            "From a vote's acceptance to its being in the tallies"
        );
        describe_gauge!("ovation_counted_partitions", "Partitions that this process counts");
        describe_gauge!("ovation_partition_lag_votes", "Records of a partition that are not counted yet");
        describe_gauge!("ovation_partition_stopped", "1 while an operator has to look at the partition");
        Self(Arc::new(Shared {
            bands: Mutex::default(),
            duplicates: counter!("ovation_duplicate_votes_total"),
            dead: counter!("ovation_dead_letters_total"),
            reconciliations: counter!("ovation_reconciliations_total"),
            records: histogram!("ovation_batch_records"),
            seconds: histogram!("ovation_batch_seconds"),
            delay: histogram!("ovation_count_delay_seconds"),
        }))
    }

    /// A batch of so many records was counted. Returns how long ago its last vote was accepted.
    pub(crate) fn counted(&self, records: usize, took: Duration, votes: &Standing, duplicates: u64) -> Duration {
        let (meters, now) = (&self.0, UnixMillis::now());
        meters.records.record(records as f64);
        meters.seconds.record(took);
        meters.duplicates.increment(duplicates);
        // Votes of one batch were mostly accepted in few milliseconds.
        let mut accepted: HashMap<UnixMillis, usize> = HashMap::new();
        for logged in votes.iter() {
            *accepted.entry(logged.vote.accepted_at).or_default() += 1;
        }
        let age = |time: UnixMillis| Duration::from_millis(u64::try_from(now.0 - time.0).unwrap_or(0));
        for (time, votes) in &accepted {
            meters.delay.record_many(age(*time), *votes);
        }
        meters.bands.lock().unwrap_or_else(PoisonError::into_inner).count(votes.iter());
        accepted.keys().max().map_or(Duration::ZERO, |time| age(*time))
    }

    pub(crate) fn buried(&self, letters: usize) {
        self.0.dead.increment(letters as u64);
    }

    pub(crate) fn reconciled(&self) {
        self.0.reconciliations.increment(1);
    }
}

/// How many partitions this process counts.
pub(crate) fn partitions(count: usize) {
    gauge!("ovation_counted_partitions").set(count as f64);
}

/// So many records of a partition are not counted yet.
pub(crate) fn lag(partition: Partition, records: u64) {
    gauge!("ovation_partition_lag_votes", "partition" => partition.to_string()).set(records as f64);
}

/// Whether an operator has to look at a partition.
pub(crate) fn stopped(partition: Partition, is_stopped: bool) {
    gauge!("ovation_partition_stopped", "partition" => partition.to_string()).set(u8::from(is_stopped));
}

impl Bands {
    fn count<'a>(&mut self, votes: impl Iterator<Item = &'a LoggedVote>) {
        for LoggedVote { vote, .. } in votes {
            if !self.counters.contains_key(&vote.contest) {
                self.counters.insert(vote.contest.clone(), HashMap::new());
            }
            let Some(contest) = self.counters.get_mut(&vote.contest) else { continue };
            let band = match vote.name.as_str() {
                name if contest.contains_key(name) => name,
                name if self.named < MOST_BANDS => {
                    self.named += 1;
                    name
                }
                _ => OTHER,
            };
            if !contest.contains_key(band) {
                contest.insert(band.to_owned(), Doors::new());
            }
            let Some(doors) = contest.get_mut(band) else { continue };
            let new = || {
                let (contest, band) = (vote.contest.to_string(), band.to_owned());
                counter!("ovation_counted_votes_total", "contest" => contest, "band" => band, "door" => vote.door.as_str())
            };
            doors.entry(vote.door).or_insert_with(new).increment(1);
        }
    }
}
