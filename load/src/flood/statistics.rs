//! Collects statistics of the outcomes. The final outcome of every vote that was sent is acknowledged, refused or
//! failed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use hdrhistogram::Histogram;

use super::{receipts::Receipts, votes::DueVote};

/// The maximum number of different error texts that are counted separately.
const MAX_ERRORS: usize = 32;

/// The maximum length of an error text, in characters. Longer texts are truncated.
const MAX_ERROR_LENGTH: usize = 200;

/// The outcome of one attempt to cast a vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The producer reported that the vote is on the log.
    Acknowledged,
    /// The producer reported that it did not accept the vote. If the reason is temporary, another attempt may succeed.
    Refused { reason: String, is_temporary: bool },
    /// There was no valid response: the vote may or may not be on the log.
    Failed { reason: String },
}

impl Outcome {
    /// Returns whether another attempt may succeed.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Acknowledged => false,
            Self::Refused { is_temporary, .. } => *is_temporary,
            Self::Failed { .. } => true,
        }
    }
}

/// The current counts of all workers, for the progress bar.
#[derive(Debug, Default)]
pub(super) struct LiveCounts {
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// The statistics of one worker. At the end of the flood, the statistics of all workers are merged.
pub(super) struct Statistics {
    pub(super) counts: Counts,
    /// Latencies of acknowledged votes in microseconds, from the due time to the acknowledgement.
    pub(super) latencies: Histogram<u32>,
    pub(super) errors: Errors,
    pub(super) last_acknowledgement: Option<Instant>,
    live: Arc<LiveCounts>,
    receipts: Option<Arc<Receipts>>,
}

/// Counts of votes: `sent = acknowledged + refused + failed` when no vote is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Votes that were sent. A vote that was sent again counts once.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    /// The number of times that a vote was sent again, including votes that a producer had not read when it shut down.
    pub(super) retries: u64,
}

impl Statistics {
    pub(super) fn new(live: Arc<LiveCounts>, receipts: Option<Arc<Receipts>>) -> Self {
        // The histogram grows only up to its longest latency: there may be thousands of workers, each with a histogram.
        let latencies = Histogram::new(3).expect("three digits are within the histogram's range");
        let (counts, errors) = (Counts::default(), Errors::default());
        Self { counts, latencies, errors, last_acknowledgement: None, live, receipts }
    }

    /// Records the final outcome of a vote.
    pub(super) fn record(&mut self, vote: &DueVote, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Acknowledged => {
                if let Some(receipts) = &self.receipts {
                    receipts.write(vote.id);
                }
                let latency = now.saturating_duration_since(vote.due);
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.latencies.record(micros).expect("a histogram that resizes takes every latency");
                self.last_acknowledgement = Some(now);
                self.counts.acknowledged += 1;
                self.live.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused { reason, .. } => {
                self.errors.record(reason, now);
                self.counts.refused += 1;
                self.live.refused.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Failed { reason } => {
                self.errors.record(reason, now);
                self.counts.failed += 1;
                self.live.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Adds the statistics of another worker.
    pub(super) fn merge(&mut self, other: Self) {
        self.counts.sent += other.counts.sent;
        self.counts.acknowledged += other.counts.acknowledged;
        self.counts.refused += other.counts.refused;
        self.counts.failed += other.counts.failed;
        self.counts.retries += other.counts.retries;
        self.latencies.add(other.latencies).expect("a histogram that resizes takes every other");
        self.last_acknowledgement = self.last_acknowledgement.max(other.last_acknowledgement);
        self.errors.merge(other.errors);
    }
}

/// The errors of votes: the earliest error, and how often each error occurred.
#[derive(Debug, Default)]
pub(super) struct Errors {
    first: Option<(Instant, String)>,
    texts: Vec<(String, u64)>,
    /// The number of errors whose text is not in [`texts`](Self::texts).
    others: u64,
}

impl Errors {
    fn record(&mut self, mut text: String, now: Instant) {
        if let Some((end, _)) = text.char_indices().nth(MAX_ERROR_LENGTH) {
            text.truncate(end);
        }
        if self.first.is_none() {
            self.first = Some((now, text.clone()));
        }
        self.add(text, 1);
    }

    fn add(&mut self, text: String, times: u64) {
        if let Some((_, count)) = self.texts.iter_mut().find(|(known, _)| *known == text) {
            *count += times;
        } else if self.texts.len() < MAX_ERRORS {
            self.texts.push((text, times));
        } else {
            self.others += times;
        }
    }

    fn merge(&mut self, other: Self) {
        self.first = self.first.take().into_iter().chain(other.first).min();
        for (text, times) in other.texts {
            self.add(text, times);
        }
        self.others += other.others;
    }

    /// Returns the earliest error.
    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_ref().map(|(_, text)| text.as_str())
    }

    /// Returns the errors and how often each occurred, the most frequent first.
    pub(super) fn most_frequent(&self) -> Vec<(&str, u64)> {
        let mut texts: Vec<_> = self.texts.iter().map(|(text, count)| (text.as_str(), *count)).collect();
        texts.sort_by(|(one, many), (other, more)| more.cmp(many).then(one.cmp(other)));
        if self.others > 0 {
            texts.push(("other errors", self.others));
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flood::votes::{Bands, VoteGenerator, Voters};

    fn statistics() -> Statistics {
        Statistics::new(Arc::default(), None)
    }

    fn vote(due: Instant) -> DueVote {
        VoteGenerator::new(Arc::new(Bands::built_in(None)), Voters::None, 0, 0).generate(due)
    }

    fn failed(reason: &str) -> Outcome {
        Outcome::Failed { reason: reason.to_owned() }
    }

    #[test]
    fn merged_statistics_are_the_sum_of_their_parts() {
        let now = Instant::now();
        let mut all = statistics();
        for worker in 1..=3_u64 {
            let mut part = statistics();
            part.counts.sent = 3;
            part.record(&vote(now), Outcome::Acknowledged, now + Duration::from_millis(worker));
            part.record(&vote(now), Outcome::Refused { reason: "full".to_owned(), is_temporary: true }, now);
            part.record(&vote(now), failed("lost"), now);
            all.merge(part);
        }
        assert_eq!(all.counts, Counts { sent: 9, acknowledged: 3, refused: 3, failed: 3, retries: 0 });
        assert_eq!(all.latencies.len(), 3);
        assert_eq!(all.latencies.value_at_quantile(0.5), 2000);
        assert_eq!(all.last_acknowledgement, Some(now + Duration::from_millis(3)));
    }

    #[test]
    fn latency_is_measured_from_the_due_time_and_only_of_acknowledged_votes() {
        let due = Instant::now();
        let mut statistics = statistics();
        statistics.record(&vote(due), Outcome::Acknowledged, due + Duration::from_millis(250));
        statistics.record(&vote(due), failed("slow"), due + Duration::from_secs(5));
        assert_eq!((statistics.latencies.len(), statistics.latencies.max() / 1000), (1, 250));
    }

    #[test]
    fn the_first_and_the_most_frequent_errors_are_reported_and_their_number_is_bounded() {
        let start = Instant::now();
        let mut early = statistics();
        early.record(&vote(start), failed("first"), start);
        let mut late = statistics();
        for i in 1..=1000 {
            late.record(&vote(start), failed(&format!("error {}", i.min(100))), start + Duration::from_millis(i));
        }
        late.merge(early);
        assert_eq!(late.errors.first(), Some("first"));
        let errors = late.errors.most_frequent();
        assert_eq!(errors.len(), MAX_ERRORS + 1);
        assert_eq!(errors.iter().map(|(_, count)| count).sum::<u64>(), 1001);
    }

    #[test]
    fn a_long_error_is_truncated_at_a_character() {
        let mut statistics = statistics();
        let now = Instant::now();
        statistics.record(&vote(now), failed(&"ü".repeat(1000)), now);
        assert_eq!(statistics.errors.first(), Some("ü".repeat(MAX_ERROR_LENGTH).as_str()));
    }
}
