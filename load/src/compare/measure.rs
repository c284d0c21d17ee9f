//! Makes one measurement: a flood of one producer, and the resources that the process of the producer uses for it.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use hyper::Uri;
use serde::{Serialize, Serializer};
use service::{CancellationToken, program::Failure};

use super::args::CompareArgs;
use crate::{
    admin,
    flood::{self, Protocol, Rate},
    rounds::Measured,
};

/// The producers to compare: the URL of each producer, and its admin port if that is reachable.
pub(super) struct Producers {
    rest: (Uri, Option<String>),
    grpc: (Uri, Option<String>),
}

/// The resources of a process, according to its metrics. The CPU time is since its start, the others are the current
/// values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_files: f64,
}

/// The resources that the process of the producer used for a measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// CPU time per vote, in microseconds.
    pub(super) cpu_us: f64,
    /// Resident memory at the end of the measurement, in MiB.
    pub(super) resident_mb: f64,
    /// Number of open files at the end of the measurement. Most of them are sockets.
    pub(super) open_files: f64,
}

/// The load of a measurement: a fixed rate, or a closed loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load(pub(super) Rate);

/// The result of one measurement.
pub(super) struct Measurement {
    pub(super) producer: Protocol,
    pub(super) load: Load,
    /// The number of the round, from 1. The warm-up has 0.
    pub(super) round: u32,
    pub(super) acknowledged: u64,
    pub(super) sent: u64,
    /// Acknowledged votes per second.
    pub(super) rate: f64,
    /// Latencies of acknowledged votes in microseconds, from the due time.
    pub(super) micros: Histogram<u32>,
    /// `None` if the admin port of the producer is not reachable.
    pub(super) cost: Option<Cost>,
    /// Bytes per vote that the client's sockets sent.
    pub(super) bytes_sent: f64,
    /// Bytes per vote that the client's sockets received.
    pub(super) bytes_received: f64,
    /// Why some votes were not acknowledged. `None` if all sent votes were.
    pub(super) problem: Option<String>,
}

impl Producers {
    pub(super) fn new(args: &CompareArgs) -> Self {
        let admin = |url: &str| admin::address(url).map(str::to_owned);
        Self { rest: (args.rest.clone(), admin(&args.rest_admin)), grpc: (args.grpc.clone(), admin(&args.grpc_admin)) }
    }

    fn addresses(&self, producer: Protocol) -> &(Uri, Option<String>) {
        if producer.is_rest() { &self.rest } else { &self.grpc }
    }

    /// Returns the current usage of the producer's process; `None` if its admin port is not reachable.
    pub(super) async fn usage(&self, producer: Protocol) -> Result<Option<Usage>, Failure> {
        let (_, Some(admin)) = self.addresses(producer) else { return Ok(None) };
        let (url, metrics) = admin::metrics(admin).await?;
        let value = |name: &str| metrics.sum(name, None).ok_or_else(|| format!("{url} has no {name}"));
        Ok(Some(Usage {
            // The first metric exists only on Linux. The second counts whole seconds.
            cpu_seconds: value("ovation_cpu_microseconds_total")
                .map(|micros| micros / 1e6)
                .or_else(|_| value("process_cpu_seconds_total"))?,
            resident_bytes: value("process_resident_memory_bytes")?,
            open_files: value("process_open_fds")?,
        }))
    }

    pub(super) async fn measure(
        &self,
        producer: Protocol,
        load: Load,
        round: u32,
        length: Duration,
        stop: &CancellationToken,
    ) -> Result<Measurement, Failure> {
        let (url, _) = self.addresses(producer);
        let before = self.usage(producer).await?;
        let report = flood::measure(producer, url.clone(), load.0, length, stop.child_token()).await?;
        let after = self.usage(producer).await?;
        if report.acknowledged == 0 {
            let problem = report.problem().unwrap_or_else(|| "none was sent".to_owned());
            return Err(format!("{} acknowledged no vote at {url}: {problem}", producer.name()).into());
        }
        let per_vote = |total: f64| total / report.acknowledged as f64;
        Ok(Measurement {
            producer,
            load,
            round,
            acknowledged: report.acknowledged,
            sent: report.sent,
            rate: report.rate,
            cost: before.zip(after).map(|(before, after)| Cost {
                cpu_us: per_vote((after.cpu_seconds - before.cpu_seconds) * 1e6),
                resident_mb: after.resident_bytes / f64::from(1 << 20),
                open_files: after.open_files,
            }),
            bytes_sent: per_vote(report.bytes_sent as f64),
            bytes_received: per_vote(report.bytes_received as f64),
            problem: report.problem(),
            micros: report.micros,
        })
    }
}

impl Measured for Measurement {
    type Subject = Protocol;

    fn subject(&self) -> Protocol {
        self.producer
    }

    fn round(&self) -> u32 {
        self.round
    }

    fn micros(&self) -> &Histogram<u32> {
        &self.micros
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rate::PerSecond(rate) => write!(f, "{rate}/s"),
            Rate::Max => f.write_str("max"),
        }
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
