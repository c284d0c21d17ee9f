//! Sets up the logs, the metrics and the traces of a process.

use std::{
    future::Future,
    io::{IsTerminal, stderr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, ConfigError, LogFormat},
    traces,
};

/// Upper bounds of latency histograms, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Upper bounds of other histograms, by the suffix of the metric's name.
const OTHER_BUCKETS: [(&str, &[f64]); 3] = [
    ("_bytes", &[64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0]),
    ("_records", &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0]),
    // A consumer that was down counts old votes, so a delay can be hours.
    ("_delay_seconds", &[0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0]),
];

/// The log directives before those of the configuration. Rocket logs several lines for each request, and an error for
/// each mistake of a client. A later directive wins, so the configuration can enable the log of Rocket.
const QUIET_TARGETS: &str = "rocket=off";

/// The interval at which samples are folded into buckets. At 10 000 votes/s, the samples between two folds take less
/// than 1 MB.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The metric of the process's CPU time. It is in microseconds, because a counter of the `metrics` crate is an integer,
/// and whole seconds are too coarse for a measurement of some seconds.
const CPU_MICROSECONDS: &str = "ovation_cpu_microseconds_total";

/// Returns the CPU time of the process in microseconds. Its resolution is a clock tick, usually 10 ms.
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
    /// Collects the CPU time, the memory and the open files of the process: `process_cpu_seconds_total` and others.
    process: Collector,
    collectors: Arc<Mutex<Vec<RenderMetrics>>>,
}

/// Reads and renders metrics at each scrape.
type RenderMetrics = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

impl Metrics {
    /// Registers `read`, which returns metrics in Prometheus text format at each scrape.
    pub fn add_collector<R: Future<Output = String> + Send + 'static>(
        &self,
        read: impl Fn() -> R + Send + Sync + 'static,
    ) {
        let collector: RenderMetrics = Arc::new(move || Box::pin(read()));
        self.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(collector);
    }

    /// Renders all metrics in Prometheus text format.
    pub async fn render(&self) -> String {
        let collectors = self.collectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let collected = join_all(collectors.iter().map(|collector| collector())).await;
        collected.into_iter().fold(self.render_own(), |all, more| all + &more)
    }

    fn render_own(&self) -> String {
        self.process.collect();
        if let Some(micros) = cpu_micros() {
            counter!(CPU_MICROSECONDS).absolute(micros);
        }
        self.handle.run_upkeep();
        without_ended(&self.handle.render())
    }

    /// Folds samples into buckets at an interval, because a histogram stores each sample until it is folded. A scrape
    /// folds samples too, but the process may not be scraped.
    async fn fold_samples(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Ends the series of a gauge: `/metrics` no longer has a sample of it, until the gauge is set again. Use it when the
/// thing that the labels name is no longer this process's, for example a partition. A last value that stays would be
/// wrong for as long as the process runs.
///
/// The `metrics` crate can't remove a gauge, so an ended gauge is NaN.
pub fn end(gauge: &Gauge) {
    gauge.set(f64::NAN);
}

/// Removes the samples of ended gauges, those that are NaN. No other sample can be NaN: counters and the counts of
/// buckets are integers, and no histogram records a NaN. Values of labels can't end a line, because each line ends
/// with its value.
fn without_ended(rendered: &str) -> String {
    rendered.split_inclusive('\n').filter(|line| line.starts_with('#') || !line.ends_with(" NaN\n")).collect()
}

/// Sets up logs on standard error, metrics and traces. Call this once per process, within the Tokio runtime, before the
/// process logs anything.
///
/// # Errors
/// If the log filter or the URL for traces is invalid.
pub fn init(config: &Config) -> Result<Metrics, ConfigError> {
    let filter = EnvFilter::try_new(format!("{QUIET_TARGETS},{}", config.log)).map_err(|error| {
        ConfigError::new("log", format!("{error}; give a level like `info` or `info,consumer=debug`"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match config.log_format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
    let handle = install_recorder().map_err(|error| ConfigError::new("metrics", error.to_string()))?;
    let metrics = Metrics { handle, process: Collector::default(), collectors: Arc::default() };
    metrics.process.describe();
    describe_gauge!("ovation_build_info", "1; the labels are the program and its version");
    gauge!("ovation_build_info", "program" => program(), "version" => env!("CARGO_PKG_VERSION")).set(1);
    describe_counter!(
        CPU_MICROSECONDS,
        Unit::Microseconds,
        "CPU time of the process; process_cpu_seconds_total counts whole seconds"
    );
    tokio::spawn(metrics.clone().fold_samples());
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

/// Returns the file name of the running program.
fn program() -> String {
    let file = std::env::current_exe().ok();
    let name = file.as_deref().and_then(|file| file.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default()
}

/// Returns the samples that `/metrics` would have, in order.
#[cfg(test)]
pub(crate) fn samples(recorder: &metrics_exporter_prometheus::PrometheusRecorder) -> Vec<String> {
    let rendered = without_ended(&recorder.handle().render());
    let is_sample = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let mut samples: Vec<String> = rendered.lines().filter(is_sample).map(str::to_owned).collect();
    samples.sort();
    samples
}

#[cfg(test)]
mod tests {
    use metrics::{histogram, with_local_recorder};

    use super::*;

    /// Returns the samples that `set` leaves behind.
    fn samples_after(set: impl FnOnce()) -> Vec<String> {
        let recorder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS[..1]).unwrap().build_recorder();
        with_local_recorder(&recorder, set);
        samples(&recorder)
    }

    fn lag(partition: &'static str) -> Gauge {
        gauge!("lag", "partition" => partition)
    }

    #[test]
    fn an_ended_series_has_no_sample_and_its_siblings_keep_theirs() {
        let set = || {
            lag("3").set(7);
            lag("4").set(8);
            end(&lag("3"));
        };
        assert_eq!(samples_after(set), [r#"lag{partition="4"} 8"#]);
    }

    #[test]
    fn a_series_that_is_set_again_is_back() {
        let set = || {
            end(&lag("3"));
            end(&lag("3"));
            lag("3").set(0);
        };
        assert_eq!(samples_after(set), [r#"lag{partition="3"} 0"#]);
    }

    #[test]
    fn all_other_samples_stay() {
        let set = || {
            describe_gauge!("lag", "the value of an ended gauge is NaN");
            gauge!("odd", "text" => "ends with NaN").set(f64::INFINITY);
            gauge!("odd", "text" => "has a line\nwith NaN\n").set(-1.5);
            counter!("votes_total").increment(2);
            histogram!("seconds").record(0.25);
        };
        let expected = [
            r#"odd{text="ends with NaN"} inf"#,
            r#"odd{text="has a line\nwith NaN\n"} -1.5"#,
            r#"seconds_bucket{le="+Inf"} 1"#,
            r#"seconds_bucket{le="0.0005"} 0"#,
            "seconds_count 1",
            "seconds_sum 0.25",
            "votes_total 2",
        ];
        assert_eq!(samples_after(set), expected);
    }
}
