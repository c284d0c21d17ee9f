//! What became of the votes: every vote that was sent ends as acknowledged, refused or failed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use hdrhistogram::Histogram;

use super::{receipts::Receipts, votes::DueVote};

/// Distinct texts of errors that are kept apart.
const MOST_ERRORS: usize = 32;

/// The longest text of an error, in characters.
const LONGEST_ERROR: usize = 200;

/// What one attempt to cast a vote led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The door says that the log has the vote.
    Acknowledged,
    /// The door says that it did not take the vote; a passing reason may be gone in a moment.
    Refused { reason: String, is_passing: bool },
    /// No usable answer: the vote may or may not be on the log.
    Failed { reason: String },
}

impl Answer {
    /// Whether sending the vote again can lead to something better.
    pub(super) fn is_worth_repeating(&self) -> bool {
        match self {
            Self::Acknowledged => false,
            Self::Refused { is_passing, .. } => *is_passing,
            Self::Failed { .. } => true,
        }
    }
}

/// The counts of all workers so far, for the progress display.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) acknowledged: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// One worker's account; the accounts are merged when the flood is over.
pub(super) struct Ledger {
    pub(super) counts: Counts,
    /// In microseconds, of acknowledged votes, from when a vote was due to its acknowledgement.
    pub(super) latencies: Histogram<u32>,
    pub(super) errors: Errors,
    pub(super) last_acknowledgement: Option<Instant>,
    live: Arc<Live>,
    receipts: Option<Arc<Receipts>>,
}

/// `sent = acknowledged + refused + failed` when nothing is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Votes handed to the wire, each once however often it was sent again.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    /// How many times a vote was sent again, be it only because a door that left had not taken it.
    pub(super) retries: u64,
}

impl Ledger {
    pub(super) fn new(live: Arc<Live>, receipts: Option<Arc<Receipts>>) -> Self {
        // Three digits; grows with the longest latency, since there may be thousands of workers.
        let latencies = Histogram::new(3).expect("three digits are within the histogram's range");
        let (counts, errors) = (Counts::default(), Errors::default());
        Self { counts, latencies, errors, last_acknowledgement: None, live, receipts }
    }

    /// Enters the last answer to a vote.
    pub(super) fn enter(&mut self, vote: &DueVote, answer: Answer, now: Instant) {
        match answer {
            Answer::Acknowledged => {
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
            Answer::Refused { reason, .. } => {
                self.errors.enter(reason, now);
                self.counts.refused += 1;
                self.live.refused.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Failed { reason } => {
                self.errors.enter(reason, now);
                self.counts.failed += 1;
                self.live.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Adds another worker's account.
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

/// The errors that votes ended with: the first, and how often each.
#[derive(Debug, Default)]
pub(super) struct Errors {
    first: Option<(Instant, String)>,
    texts: Vec<(String, u64)>,
    /// Errors whose text found no room.
    others: u64,
}

impl Errors {
    fn enter(&mut self, mut text: String, now: Instant) {
        if let Some((end, _)) = text.char_indices().nth(LONGEST_ERROR) {
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
        } else if self.texts.len() < MOST_ERRORS {
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

    /// The earliest error.
    pub(super) fn first(&self) -> Option<&str> {
        self.first.as_ref().map(|(_, text)| text.as_str())
    }

    /// The most frequent errors first.
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
    use crate::flood::{
        args::Voters,
        votes::{Bands, Draw},
    };

    fn ledger() -> Ledger {
        Ledger::new(Arc::default(), None)
    }

    fn vote(due: Instant) -> DueVote {
        Draw::new(Arc::new(Bands::built_in(None)), Voters::Nobody, 0, 0).draw(due)
    }

    fn failed(reason: &str) -> Answer {
        Answer::Failed { reason: reason.to_owned() }
    }

    #[test]
    fn merged_accounts_are_the_sum_of_their_parts() {
        let now = Instant::now();
        let mut all = ledger();
        for worker in 1..=3_u64 {
            let mut part = ledger();
            part.counts.sent = 3;
            part.enter(&vote(now), Answer::Acknowledged, now + Duration::from_millis(worker));
            part.enter(&vote(now), Answer::Refused { reason: "full".to_owned(), is_passing: true }, now);
            part.enter(&vote(now), failed("cut"), now);
            all.merge(part);
        }
        assert_eq!(all.counts, Counts { sent: 9, acknowledged: 3, refused: 3, failed: 3, retries: 0 });
        assert_eq!(all.latencies.len(), 3);
        assert_eq!(all.latencies.value_at_quantile(0.5), 2000);
        assert_eq!(all.last_acknowledgement, Some(now + Duration::from_millis(3)));
    }

    #[test]
    fn latency_is_counted_from_when_the_vote_was_due_and_only_of_acknowledged_ones() {
        let due = Instant::now();
        let mut ledger = ledger();
        ledger.enter(&vote(due), Answer::Acknowledged, due + Duration::from_millis(250));
        ledger.enter(&vote(due), failed("slow"), due + Duration::from_secs(5));
        assert_eq!((ledger.latencies.len(), ledger.latencies.max() / 1000), (1, 250));
    }

    #[test]
    fn the_first_error_and_the_most_frequent_are_known_and_their_number_is_bounded() {
        let start = Instant::now();
        let mut early = ledger();
        early.enter(&vote(start), failed("first"), start);
        let mut late = ledger();
        for i in 1..=1000 {
            late.enter(&vote(start), failed(&format!("error {}", i.min(100))), start + Duration::from_millis(i));
        }
        late.merge(early);
        assert_eq!(late.errors.first(), Some("first"));
        let errors = late.errors.most_frequent();
        assert_eq!(errors.len(), MOST_ERRORS + 1);
        assert_eq!(errors.iter().map(|(_, count)| count).sum::<u64>(), 1001);
    }

    #[test]
    fn a_long_error_is_cut_at_a_character() {
        let mut ledger = ledger();
        let now = Instant::now();
        ledger.enter(&vote(now), failed(&"ü".repeat(1000)), now);
        assert_eq!(ledger.errors.first(), Some("ü".repeat(LONGEST_ERROR).as_str()));
    }
}
