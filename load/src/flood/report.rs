//! The report of a flood, as one JSON object or as a few lines of text.

use std::{fmt, time::Instant};

use hdrhistogram::Histogram;
use indicatif::HumanCount;
use serde::Serialize;

use super::{plan::Plan, protocol::Protocol, rate::Rate, schedule::Schedule, statistics::Statistics};

/// The maximum number of different errors in the text.
const MAX_ERRORS_IN_TEXT: usize = 3;

/// The result of a flood. Scripts depend on the names in its JSON form.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    protocol: Protocol,
    url: String,
    /// The time from the start to the end of sending, or to the last acknowledgement if that was later.
    seconds: f64,
    /// The requested votes per second; `None` for a closed loop.
    offered: Option<f64>,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    refused: u64,
    failed: u64,
    /// The number of times that a vote was sent again.
    retries: u64,
    /// Votes of the schedule that were not sent, because the flood was late at its end or was stopped.
    unsent: u64,
    /// Acknowledged votes per second.
    pub(crate) rate: f64,
    connections: usize,
    /// Bytes written to the sockets. They include the overhead of all protocols above TCP.
    pub(crate) bytes_sent: u64,
    /// Bytes read from the sockets.
    pub(crate) bytes_received: u64,
    #[serde(flatten)]
    latencies: Latencies,
    /// The most frequent errors first.
    errors: Vec<ErrorCount>,
    #[serde(skip)]
    first_error: Option<String>,
    /// Latencies of acknowledged votes in microseconds, from the due time.
    #[serde(skip)]
    pub(crate) micros: Histogram<u32>,
}

/// Latencies of acknowledged votes, from the due time; `None` if no vote was acknowledged.
#[derive(Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "these are the names of the JSON form")]
struct Latencies {
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    p999_ms: Option<f64>,
    max_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
struct ErrorCount {
    error: String,
    votes: u64,
}

impl Report {
    /// Creates the report. `stopped` is the time at which the flood was stopped, if that was before its end.
    pub(super) fn new(plan: &Plan, schedule: Schedule, stopped: Option<Instant>, statistics: &Statistics) -> Self {
        let end = stopped.unwrap_or(schedule.end()).max(statistics.last_acknowledgement.unwrap_or(schedule.start()));
        let seconds = end.saturating_duration_since(schedule.start()).as_secs_f64();
        let counts = statistics.counts;
        let count = |(error, votes): (&str, u64)| ErrorCount { error: error.to_owned(), votes };
        Self {
            protocol: plan.protocol,
            url: plan.url.to_string().trim_end_matches('/').to_owned(),
            seconds: thousandths(seconds),
            offered: match plan.rate {
                Rate::PerSecond(rate) => Some(rate),
                Rate::Max => None,
            },
            sent: counts.sent,
            acknowledged: counts.acknowledged,
            refused: counts.refused,
            failed: counts.failed,
            retries: counts.retries,
            unsent: schedule.total().map_or(0, |total| total - counts.sent),
            rate: if seconds > 0.0 { thousandths(counts.acknowledged as f64 / seconds) } else { 0.0 },
            latencies: Latencies::of(&statistics.latencies),
            errors: statistics.errors.most_frequent().into_iter().map(count).collect(),
            first_error: statistics.errors.first().map(str::to_owned),
            connections: plan.connections,
            bytes_sent: plan.group.sent(),
            bytes_received: plan.group.received(),
            micros: statistics.latencies.clone(),
        }
    }

    /// Describes the sent votes that were not acknowledged. Returns `None` if all were.
    pub(crate) fn problem(&self) -> Option<String> {
        let first = self.first_error.as_ref()?;
        Some(format!(
            "{} of {} votes were not acknowledged; the first error: {first}",
            HumanCount(self.refused + self.failed),
            HumanCount(self.sent)
        ))
    }
}

impl Latencies {
    fn of(micros: &Histogram<u32>) -> Self {
        if micros.is_empty() {
            return Self::default();
        }
        let millis = |micros: u64| Some(micros as f64 / 1000.0);
        let quantile = |quantile| millis(micros.value_at_quantile(quantile));
        Self {
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: millis(micros.max()),
        }
    }
}

/// Rounds to three decimals.
fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offered = self.offered.map_or("closed loop".to_owned(), |rate| format!("{rate} votes/s offered"));
        let protocol = serde_json::to_value(self.protocol).unwrap_or_default();
        writeln!(f, "{} to {}, {:.1} s, {offered}", protocol.as_str().unwrap_or_default(), self.url, self.seconds)?;
        let mut row = |name: &str, votes: u64, more: &str| {
            let votes = HumanCount(votes).to_string();
            writeln!(f, "{}", format!("  {name:<13}{votes:>15}{more}").trim_end())
        };
        row("sent", self.sent, "")?;
        row("acknowledged", self.acknowledged, &format!("   {:.0} votes/s", self.rate))?;
        row("refused", self.refused, "")?;
        row("failed", self.failed, "")?;
        if self.retries > 0 {
            row("sent again", self.retries, "")?;
        }
        if self.unsent > 0 {
            row("unsent", self.unsent, "   due, but the flood was late or stopped")?;
        }
        if let Latencies {
            p50_ms: Some(p50),
            p90_ms: Some(p90),
            p99_ms: Some(p99),
            p999_ms: Some(p999),
            max_ms: Some(max),
        } = self.latencies
        {
            writeln!(f, "  latency ms   p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")?;
        }
        for ErrorCount { error, votes } in self.errors.iter().take(MAX_ERRORS_IN_TEXT) {
            writeln!(f, "  {:>13} x {error}", HumanCount(*votes).to_string())?;
        }
        Ok(())
    }
}
