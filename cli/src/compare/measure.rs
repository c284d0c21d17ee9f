//! One measurement: a flood of one door, and what it cost the door's process.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use hyper::Uri;
use serde::{Serialize, Serializer};
use service::{CancellationToken, program::Failure};

use super::CompareArgs;
use crate::{
    client,
    exposition::Exposition,
    flood::{self, Protocol, Rate},
};

/// Stands for the address of a process that can't be asked.
pub(super) const NOBODY: &str = "none";

/// The doors that are compared: where each takes votes, and where its process tells what it costs, if it can be asked.
pub(super) struct Doors {
    rest: (Uri, Option<String>),
    grpc: (Uri, Option<String>),
}

/// What a process says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_files: f64,
}

/// What a measurement cost the door's process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// A vote.
    pub(super) cpu_us: f64,
    /// At the end.
    pub(super) resident_mb: f64,
    /// At the end: sockets for the most part.
    pub(super) open_files: f64,
}

/// How votes come: at a rate, or as many as the door takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load(pub(super) Rate);

/// What was measured once.
pub(super) struct Measurement {
    pub(super) door: Protocol,
    pub(super) load: Load,
    /// Counted from 1; 0 is the warm-up.
    pub(super) round: u32,
    pub(super) acknowledged: u64,
    pub(super) sent: u64,
    /// Acknowledged votes a second.
    pub(super) rate: f64,
    /// Latencies of acknowledged votes in microseconds, from when each was due.
    pub(super) micros: Histogram<u32>,
    /// `None` if the door's process can't be asked.
    pub(super) cost: Option<Cost>,
    /// On the client's sockets, a vote.
    pub(super) bytes_sent: f64,
    pub(super) bytes_received: f64,
    /// Why not every vote was acknowledged, if so.
    pub(super) complaint: Option<String>,
}

impl Doors {
    pub(super) fn new(args: &CompareArgs) -> Self {
        let admin = |url: &String| (url != NOBODY).then(|| url.clone());
        Self { rest: (args.rest.clone(), admin(&args.rest_admin)), grpc: (args.grpc.clone(), admin(&args.grpc_admin)) }
    }

    fn of(&self, door: Protocol) -> &(Uri, Option<String>) {
        if door.is_rest() { &self.rest } else { &self.grpc }
    }

    /// What the door's process has used until now; `None` if it can't be asked.
    pub(super) async fn usage(&self, door: Protocol) -> Result<Option<Usage>, Failure> {
        let (_, Some(admin)) = self.of(door) else { return Ok(None) };
        let (url, text) = client::get_bytes(admin, "/metrics").await?;
        let told = Exposition::parse(&String::from_utf8_lossy(&text));
        let value = |name: &str| told.sum(name, None).ok_or_else(|| format!("{url} has no {name}"));
        Ok(Some(Usage {
            // Elsewhere than on Linux there are whole seconds only.
            cpu_seconds: value("ovation_cpu_microseconds_total")
                .map(|micros| micros / 1e6)
                .or_else(|_| value("process_cpu_seconds_total"))?,
            resident_bytes: value("process_resident_memory_bytes")?,
            open_files: value("process_open_fds")?,
        }))
    }

    pub(super) async fn measure(
        &self,
        door: Protocol,
        load: Load,
        round: u32,
        length: Duration,
        stop: &CancellationToken,
    ) -> Result<Measurement, Failure> {
        let (url, _) = self.of(door);
        let before = self.usage(door).await?;
        let report = flood::measure(door, url.clone(), load.0, length, stop.child_token()).await?;
        let after = self.usage(door).await?;
        if report.acknowledged == 0 {
            let why = report.complaint().unwrap_or_else(|| "none was sent".to_owned());
            return Err(format!("{} acknowledged no vote at {url}: {why}", door.name()).into());
        }
        let of_a_vote = |total: f64| total / report.acknowledged as f64;
        Ok(Measurement {
            door,
            load,
            round,
            acknowledged: report.acknowledged,
            sent: report.sent,
            rate: report.rate,
            cost: before.zip(after).map(|(before, after)| Cost {
                cpu_us: of_a_vote((after.cpu_seconds - before.cpu_seconds) * 1e6),
                resident_mb: after.resident_bytes / f64::from(1 << 20),
                open_files: after.open_files,
            }),
            bytes_sent: of_a_vote(report.bytes_sent as f64),
            bytes_received: of_a_vote(report.bytes_received as f64),
            complaint: report.complaint(),
            micros: report.micros,
        })
    }
}

impl Measurement {
    /// A quantile of the latencies, in milliseconds.
    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1e3
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
