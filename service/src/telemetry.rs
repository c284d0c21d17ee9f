//! Logs, metrics and traces of a process.

use std::{
    future::Future,
    io::{IsTerminal, stderr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_subscriber::EnvFilter;

use crate::{
    ConfigError,
    config::{Config, LogFormat},
    traces,
};

/// Upper bounds of latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Upper bounds of other histograms: the end of a metric's name, and what its unit allows.
const OTHER_BUCKETS: [(&str, &[f64]); 3] = [
    ("_bytes", &[64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0]),
    ("_records", &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0]),
    // Counting may be behind by any time.
    ("_delay_seconds", &[0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0]),
];

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
    collections: Arc<Mutex<Vec<Collect>>>,
}

/// Writes metrics that are read from somewhere when they are asked for.
type Collect = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

impl Metrics {
    /// Adds metrics that are read when somebody scrapes, in Prometheus text format.
    pub fn collect<R: Future<Output = String> + Send + 'static>(&self, read: impl Fn() -> R + Send + Sync + 'static) {
        let collect: Collect = Arc::new(move || Box::pin(read()));
        self.collections.lock().unwrap_or_else(PoisonError::into_inner).push(collect);
    }

    /// In Prometheus text format.
    pub async fn render(&self) -> String {
        let collections = self.collections.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let collected = join_all(collections.iter().map(|collect| collect())).await;
        collected.into_iter().fold(self.render_own(), |all, more| all + &more)
    }

    fn render_own(&self) -> String {
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

/// Sets up logs, on standard error, metrics and traces. Once per process, within its runtime, before anything is logged.
///
/// # Errors
/// If the log filter or the traces' URL is of no use.
pub fn init(config: &Config) -> Result<Metrics, ConfigError> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.log)).map_err(|error| {
        ConfigError::new("log", format!("{error}; give a level like `info` or `info,consumer=debug`"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    let handle = install_recorder().map_err(|error| ConfigError::new("metrics", error.to_string()))?;
    let metrics = Metrics { handle, process: Collector::default(), collections: Arc::default() };
    metrics.process.describe();
    describe_gauge!("ovation_build_info", "1; the labels say which program this is");
    gauge!("ovation_build_info", "program" => program(), "version" => env!("CARGO_PKG_VERSION")).set(1);
    describe_counter!(
        CPU,
        Unit::Microseconds,
        "CPU time of the process; process_cpu_seconds_total counts whole seconds"
    );
    tokio::spawn(metrics.clone().fold());
    traces::init(config, program())?;
    Ok(metrics)
}

fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let mut builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS)?;
    for (suffix, buckets) in OTHER_BUCKETS {
        builder = builder.set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets)?;
    }
    builder.install_recorder()
}

/// The name of the file that runs.
fn program() -> String {
    let file = std::env::current_exe().ok();
    let name = file.as_deref().and_then(|file| file.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default()
}
