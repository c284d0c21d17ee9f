//! `ovation stats`: shows the throughput and the resources of the processes of a running system. It reads the metrics
//! and the health from their admin ports.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use api::{HealthReport, HealthStatus};
use clap::Args;
use client::{Exposition, http};
use futures::future::join_all;
use serde::Serialize;
use service::{CancellationToken, program::Failure};
use tokio::time::{MissedTickBehavior, interval, timeout};
use votes::UnixMillis;

use crate::interrupt::exit_code;

/// The default admin ports of `ovation up` and of the four programs.
const DEFAULT_ADMINS: [&str; 5] = [
    "http://127.0.0.1:9100",
    "http://127.0.0.1:9101",
    "http://127.0.0.1:9102",
    "http://127.0.0.1:9103",
    "http://127.0.0.1:9104",
];

/// The interval between two samples.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time for one sample. The health checks of stores take at most two seconds.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(3);

/// Show votes per second, lag, CPU, memory and disk of the running processes
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ovation stats --follow\n  ovation stats --admin http://10.0.0.7:9103 --admin http://10.0.0.8:9103 --json"
)]
pub(crate) struct StatsArgs {
    /// The admin port of a process; may be given several times
    /// [default: ports 9100 to 9104 of this machine, those that respond]
    #[arg(long, value_name = "URL")]
    admin: Vec<String>,
    /// Print new figures every second, until Ctrl-C; otherwise the command measures for one second
    #[arg(long)]
    follow: bool,
    /// Print a JSON object {time, processes}, with --follow one per line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: StatsArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    let outcome = stop.run_until_cancelled(show(&args)).await;
    exit_code(outcome.unwrap_or(Ok(())))
}

async fn show(args: &StatsArgs) -> Result<(), Failure> {
    let defaults = DEFAULT_ADMINS.map(str::to_owned);
    let admins = if args.admin.is_empty() { &defaults[..] } else { &args.admin };
    let mut ticks = interval(REFRESH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut printer = Printer { json: args.json, is_terminal: stdout().is_terminal(), lines: 0 };
    let mut before: BTreeMap<&str, Sample> = BTreeMap::new();
    for round in 0.. {
        ticks.tick().await;
        let samples = join_all(admins.iter().map(|admin| async move { (admin.as_str(), read(admin).await) })).await;
        if let (0, Some((_, Err(error)))) = (round, samples.first())
            && samples.iter().all(|(_, sample)| sample.is_err())
        {
            return Err(format!("no process responds; the first error of {}: {error}", samples.len()).into());
        }
        let mut processes = Vec::new();
        for (admin, sample) in samples {
            match sample {
                Ok(sample) => {
                    processes.push(sample.stats(admin, before.get(admin)));
                    before.insert(admin, sample);
                }
                // A default port is shown only if it has responded before.
                Err(_) if args.admin.is_empty() && !before.contains_key(admin) => {}
                Err(error) => processes.push(ProcessStats::unreachable(admin, before.get(admin), &error)),
            }
        }
        // Rates need two samples, so the first round prints nothing.
        if round > 0 {
            printer.print(&processes)?;
            if !args.follow {
                break;
            }
        }
    }
    Ok(())
}

/// The metrics and the health of a process at one moment.
struct Sample {
    at: Instant,
    program: String,
    health: String,
    problems: Vec<String>,
    accepted: Option<f64>,
    refused: Option<f64>,
    counted: Option<f64>,
    lag: Option<f64>,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<f64>,
    used: Used,
}

/// The used share of each resource of the machine or container of a process, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Used {
    cpu: Option<f64>,
    memory: Option<f64>,
    disk: Option<f64>,
}

/// The figures of a process. A figure that the process does not report is `None`.
#[derive(Debug, PartialEq, Serialize)]
struct ProcessStats {
    admin: String,
    program: String,
    health: String,
    problems: Vec<String>,
    accepted_per_second: Option<f64>,
    refused_per_second: Option<f64>,
    counted_per_second: Option<f64>,
    lag: Option<f64>,
    /// The CPU time per second: 1 is one full core.
    cpu: Option<f64>,
    memory_bytes: Option<f64>,
    used: Used,
}

async fn read(admin: &str) -> Result<Sample, Failure> {
    let requests = async { tokio::try_join!(http::get_bytes(admin, "/metrics"), http::get_any(admin, "/health")) };
    let late = |_| format!("{admin} did not respond within {SCRAPE_TIMEOUT:?}");
    let ((_, metrics), (_, health)) = timeout(SCRAPE_TIMEOUT, requests).await.map_err(late)??;
    let report: HealthReport = serde_json::from_slice(&health)?;
    Ok(Sample::of(&Exposition::parse(&String::from_utf8_lossy(&metrics)), report))
}

impl Sample {
    fn of(metrics: &Exposition, report: HealthReport) -> Self {
        let votes = |accepted| metrics.sum("ovation_votes_total", accepted);
        let accepted = votes(Some(("outcome", "accepted")));
        let lag = metrics.sum("ovation_partition_lag_votes", None);
        let used = |resource| metrics.sum("ovation_used_ratio", Some(("resource", resource)));
        let failed = report.checks.into_iter().filter(|check| check.status != HealthStatus::Healthy);
        Self {
            at: Instant::now(),
            program: metrics.label("ovation_build_info", "program").unwrap_or("?").to_owned(),
            health: report.status.to_string(),
            problems: failed
                .map(|check| format!("{}: {}", check.name, check.error.as_deref().unwrap_or("failed")))
                .collect(),
            accepted,
            refused: votes(None).map(|all| all - accepted.unwrap_or(0.0)),
            // A process with a lag is a consumer. If it has counted no vote yet, its count is 0.
            counted: metrics.sum("ovation_counted_votes_total", None).or(lag.map(|_| 0.0)),
            lag,
            cpu_seconds: metrics
                .sum("ovation_cpu_microseconds_total", None)
                .map(|micros| micros / 1e6)
                .or_else(|| metrics.sum("process_cpu_seconds_total", None)),
            memory_bytes: metrics.sum("process_resident_memory_bytes", None),
            used: Used { cpu: used("cpu"), memory: used("memory"), disk: used("disk") },
        }
    }

    fn stats(&self, admin: &str, before: Option<&Self>) -> ProcessStats {
        let rate = |total: fn(&Self) -> Option<f64>| {
            let (before, now) = (before?, total(self)?);
            // The counters of a restarted process start at 0.
            let since = total(before).filter(|since| *since <= now).unwrap_or(0.0);
            Some((now - since) / self.at.duration_since(before.at).as_secs_f64())
        };
        ProcessStats {
            admin: admin.to_owned(),
            program: self.program.clone(),
            health: self.health.clone(),
            problems: self.problems.clone(),
            accepted_per_second: rate(|sample| sample.accepted),
            refused_per_second: rate(|sample| sample.refused),
            counted_per_second: rate(|sample| sample.counted),
            lag: self.lag,
            cpu: rate(|sample| sample.cpu_seconds),
            memory_bytes: self.memory_bytes,
            used: self.used,
        }
    }
}

impl ProcessStats {
    /// Returns the entry of a process that does not respond.
    fn unreachable(admin: &str, before: Option<&Sample>, error: &Failure) -> Self {
        Self {
            admin: admin.to_owned(),
            program: before.map_or("?", |sample| &sample.program).to_owned(),
            health: "unreachable".to_owned(),
            problems: vec![error.to_string()],
            accepted_per_second: None,
            refused_per_second: None,
            counted_per_second: None,
            lag: None,
            cpu: None,
            memory_bytes: None,
            used: Used::default(),
        }
    }

    /// Returns the cells of the table, in the order of [`TITLES`].
    fn cells(&self) -> [String; TITLES.len()] {
        let cell = |value: Option<f64>, format: fn(f64) -> String| value.map_or("-".to_owned(), format);
        let whole = |value: f64| format!("{value:.0}");
        let percent = |value: f64| format!("{:.0}%", value * 100.0);
        [
            self.program.clone(),
            self.health.clone(),
            cell(self.accepted_per_second, whole),
            cell(self.refused_per_second, whole),
            cell(self.counted_per_second, whole),
            cell(self.lag, whole),
            cell(self.cpu, percent),
            cell(self.memory_bytes, |bytes| format!("{:.0}MB", bytes / f64::from(1 << 20))),
            cell(self.used.cpu, percent),
            cell(self.used.memory, percent),
            cell(self.used.disk, percent),
        ]
    }
}

/// The titles of the table. The first two columns are texts. The others are numbers: first of the process, then of its
/// machine.
const TITLES: [&str; 11] = [
    "program",
    "health",
    "accepted/s",
    "refused/s",
    "counted/s",
    "lag",
    "cpu",
    "memory",
    "machine-cpu",
    "machine-memory",
    "disk",
];

struct Printer {
    json: bool,
    is_terminal: bool,
    /// The number of lines of the block that was printed last.
    lines: usize,
}

impl Printer {
    fn print(&mut self, processes: &[ProcessStats]) -> io::Result<()> {
        let (now, mut out) = (UnixMillis::now(), stdout().lock());
        if self.json {
            serde_json::to_writer(&mut out, &serde_json::json!({ "time": now.0, "processes": processes }))?;
            writeln!(out)?;
        } else if self.is_terminal {
            let block = block(processes);
            if self.lines > 0 {
                // Moves the cursor to the start of the last block and clears it.
                write!(out, "\x1b[{}A\x1b[J", self.lines)?;
            }
            self.lines = block.len();
            for line in block {
                writeln!(out, "{line}")?;
            }
        } else {
            for process in processes {
                let named = TITLES.iter().zip(process.cells()).skip(2).map(|(title, cell)| format!("  {title} {cell}"));
                let problems = process.problems.iter().map(|problem| format!("  {problem}"));
                let rest: String = named.chain(problems).collect();
                writeln!(out, "{now}  {}  {}{rest}", process.program, process.health)?;
            }
        }
        out.flush()
    }
}

/// Returns the lines of the table, followed by the problems.
fn block(processes: &[ProcessStats]) -> Vec<String> {
    let rows: Vec<[String; TITLES.len()]> =
        [TITLES.map(str::to_owned)].into_iter().chain(processes.iter().map(ProcessStats::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; TITLES.len()]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match (column, width(column)) {
            (0 | 1, width) => format!("{cell:<width$}"),
            (_, width) => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    let problems = processes
        .iter()
        .flat_map(|process| process.problems.iter().map(|problem| format!("{}: {problem}", process.program)));
    rows.iter().map(line).chain(problems).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(metrics: &str) -> Sample {
        let (status, waiting_for) = (HealthStatus::Healthy, Vec::new());
        let report = HealthReport { status, ready: true, waiting_for, checks: Vec::new() };
        Sample::of(&Exposition::parse(metrics), report)
    }

    #[test]
    fn a_rate_is_the_increase_since_the_last_sample() {
        let mut before = sample("ovation_votes_total{outcome=\"accepted\"} 100\nlag 1\n");
        let now = sample("ovation_votes_total{outcome=\"accepted\"} 350\novation_votes_total{outcome=\"closed\"} 50\n");
        before.at = now.at.checked_sub(Duration::from_millis(500)).unwrap();
        let process = now.stats("here", Some(&before));
        assert_eq!((process.accepted_per_second, process.refused_per_second), (Some(500.0), Some(100.0)));
        assert_eq!((process.counted_per_second, process.lag), (None, None));
        // After a restart.
        let mut restarted = sample("ovation_votes_total{outcome=\"accepted\"} 20\n");
        restarted.at = now.at + Duration::from_secs(1);
        assert_eq!(restarted.stats("here", Some(&now)).accepted_per_second, Some(20.0));
        assert_eq!(now.stats("here", None).accepted_per_second, None);
    }

    #[test]
    fn the_table_has_a_line_for_each_process_and_each_problem() {
        let failed = ProcessStats::unreachable("http://x", None, &"connection refused".into());
        let lines = block(&[sample("ovation_partition_lag_votes{partition=\"0\"} 7\n").stats("here", None), failed]);
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("program  health"));
        assert_eq!(lines[0].len(), lines[1].len());
        assert_eq!(lines[3], "?: connection refused");
    }
}
