//! The metrics of the consumer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use service::telemetry;
use votes::{ContestId, CountedVotes, LoggedVote, Partition, ProducerKind, UnixMillis};

/// The maximum number of bands, over all contests, that have series of their own: one for each producer. Further bands
/// are counted as the band `other`.
const MAX_BANDS: usize = 100;

const OTHER: &str = "other";

const LAG: &str = "ovation_partition_lag_votes";
const STOPPED: &str = "ovation_partition_stopped";

/// The metrics of counting, shared by all partitions.
#[derive(Clone)]
pub(crate) struct Meters(Arc<Handles>);

struct Handles {
    bands: Mutex<Bands>,
    duplicates: Counter,
    dead_letters: Counter,
    reconciliations: Counter,
    records: Histogram,
    seconds: Histogram,
    delay: Histogram,
}

/// Counters by contest, band and producer.
#[derive(Default)]
struct Bands {
    counters: HashMap<ContestId, HashMap<String, Producers>>,
    /// The number of bands with counters of their own.
    named: usize,
}

type Producers = HashMap<ProducerKind, Counter>;

impl Meters {
    pub(crate) fn new() -> Self {
        describe_counter!(
            "ovation_counted_votes_total",
            "Votes counted by this process, by contest, band and producer"
        );
        describe_counter!("ovation_duplicate_votes_total", "Duplicate votes, which are not counted");
        describe_counter!("ovation_dead_letters_total", "Invalid records that were stored as dead letters");
        describe_counter!(
            "ovation_reconciliations_total",
            "How often a partition was reconciled because a store was not at its position"
        );
        describe_histogram!("ovation_batch_records", "Number of records in a batch");
        describe_histogram!("ovation_batch_seconds", Unit::Seconds, "Time that counting a batch takes");
        describe_histogram!(
            "ovation_count_delay_seconds",
            Unit::Seconds,
            "Time from a vote's acceptance until it is in the tallies"
        );
        describe_gauge!("ovation_assigned_partitions", "Partitions that this process counts");
        describe_gauge!("ovation_partitions", "Partitions of the vote log");
        describe_gauge!("ovation_partition_held", "1 while this process counts the partition, otherwise 0");
        describe_gauge!(
            LAG,
            "Records of a partition that are not counted yet, while this process counts the partition"
        );
        describe_gauge!(STOPPED, "1 while the partition is stopped and needs an operator");
        Self(Arc::new(Handles {
            bands: Mutex::default(),
            duplicates: counter!("ovation_duplicate_votes_total"),
            dead_letters: counter!("ovation_dead_letters_total"),
            reconciliations: counter!("ovation_reconciliations_total"),
            records: histogram!("ovation_batch_records"),
            seconds: histogram!("ovation_batch_seconds"),
            delay: histogram!("ovation_count_delay_seconds"),
        }))
    }

    /// Records that a batch was counted. Returns how long ago the latest vote of the batch was accepted, or zero if the
    /// batch has no votes that count.
    pub(crate) fn record_batch(
        &self,
        records: usize,
        took: Duration,
        votes: &CountedVotes,
        duplicates: u64,
    ) -> Duration {
        let (meters, now) = (&self.0, UnixMillis::now());
        meters.records.record(records as f64);
        meters.seconds.record(took);
        meters.duplicates.increment(duplicates);
        // Most votes of a batch were accepted within a few milliseconds. So the histogram is updated once for each
        // time.
        let mut accepted: HashMap<UnixMillis, usize> = HashMap::new();
        for logged in votes.iter() {
            *accepted.entry(logged.vote.accepted_at).or_default() += 1;
        }
        for (time, votes) in &accepted {
            meters.delay.record_many(now.since(*time), *votes);
        }
        meters.bands.lock().unwrap_or_else(PoisonError::into_inner).count(votes.iter());
        accepted.keys().max().map_or(Duration::ZERO, |time| now.since(*time))
    }

    pub(crate) fn record_dead_letters(&self, letters: usize) {
        self.0.dead_letters.increment(letters as u64);
    }

    pub(crate) fn record_reconciliation(&self) {
        self.0.reconciliations.increment(1);
    }
}

/// Sets how many partitions this process counts.
pub(crate) fn set_assigned_partitions(count: usize) {
    gauge!("ovation_assigned_partitions").set(count as f64);
}

/// Sets how many partitions the log has, and that this process counts none of them yet.
pub(crate) fn set_partitions(count: u16) {
    gauge!("ovation_partitions").set(count);
    (0..count).map(Partition).for_each(|partition| set_held(partition, false));
    set_assigned_partitions(0);
}

/// Sets that this process counts a partition from now on.
pub(crate) fn begin_partition(partition: Partition) {
    set_held(partition, true);
}

/// Sets that this process no longer counts a partition, and ends the partition's other series.
pub(crate) fn end_partition(partition: Partition) {
    set_held(partition, false);
    for name in [LAG, STOPPED] {
        telemetry::end(&gauge!(name, "partition" => partition.to_string()));
    }
}

fn set_held(partition: Partition, is_held: bool) {
    gauge!("ovation_partition_held", "partition" => partition.to_string()).set(u8::from(is_held));
}

/// Sets how many records of a partition are not counted yet.
pub(crate) fn set_lag(partition: Partition, records: u64) {
    gauge!(LAG, "partition" => partition.to_string()).set(records as f64);
}

/// Sets whether a partition is halted and needs an operator.
pub(crate) fn set_halted(partition: Partition, is_halted: bool) {
    gauge!(STOPPED, "partition" => partition.to_string()).set(u8::from(is_halted));
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
                name if self.named < MAX_BANDS => {
                    self.named += 1;
                    name
                }
                _ => OTHER,
            };
            if !contest.contains_key(band) {
                contest.insert(band.to_owned(), Producers::new());
            }
            let Some(producers) = contest.get_mut(band) else { continue };
            let new = || {
                let (contest, band) = (vote.contest.to_string(), band.to_owned());
                counter!("ovation_counted_votes_total", "contest" => contest, "band" => band, "producer" => vote.producer.as_str())
            };
            producers.entry(vote.producer).or_insert_with(new).increment(1);
        }
    }
}
