//! Logs and metrics of a process.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use metrics::{Unit, counter, describe_counter};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_subscriber::EnvFilter;

use crate::{
    ConfigError,
    config::{Config, LogFormat},
};

/// Upper bounds of latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Rocket tells of each request, at several lines each, and of each client's mistake as an error. Who wants that says so:
/// what is configured stands over this.
const QUIET: &str = "rocket=off";

/// How often samples are folded into buckets: at 10 000 votes/s they take less than 1 MB until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the process has cost. A counter of the `metrics` crate is a whole number, and seconds are too few of them for a
/// measurement of some seconds.
const CPU: &str = "ovation_cpu_microseconds_total";

/// CPU time until now, to a hundredth of a second.
#[cfg(target_os = "linux")]
fn cpu_micros() -> Option<u64> {
    let stat = procfs::process::Process::myself().ok()?.stat().ok()?;
    Some((stat.utime + stat.stime) * 1_000_000 / procfs::ticks_per_second())
}

#[cfg(not(target_os = "linux"))]
fn cpu_micros() -> Option<u64> {
    None
}

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    /// CPU, memory and open files: `process_cpu_seconds_total` and its like.
    process: Collector,
}

impl Metrics {
    /// In Prometheus text format.
    pub fn render(&self) -> String {
        self.process.collect();
        if let Some(micros) = cpu_micros() {
            counter!(CPU).absolute(micros);
        }
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Histograms keep each sample until it is folded into its bucket, and where nobody scrapes, nothing else would do that.
    async fn fold(self) {
        let mut every = tokio::time::interval(UPKEEP);
        loop {
            every.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Sets up logs, on standard error, and metrics. Once per process, within its runtime, before anything is logged.
///
/// # Errors
/// If the log filter can't be read.
pub fn init(config: &Config) -> Result<Metrics, ConfigError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log)).map_err(|error| {
        ConfigError::new("log", format!("{error}; give a level like `info` or `info,consumer=debug`"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    let handle = PrometheusBuilder::new()
        .set_buckets(&LATENCY_BUCKETS)
        .map_err(|error| ConfigError::new("metrics", error.to_string()))?
        .install_recorder()
        .map_err(|error| ConfigError::new("metrics", error.to_string()))?;
    let metrics = Metrics { handle, process: Collector::default() };
    metrics.process.describe();
    describe_counter!(
        CPU,
        Unit::Microseconds,
        "CPU time of the process; process_cpu_seconds_total counts whole seconds"
    );
    tokio::spawn(metrics.clone().fold());
    Ok(metrics)
}
