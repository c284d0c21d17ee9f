//! `ovation stats`: what the parts of a running system do and take, by what they tell at their admin ports.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use service::CancellationToken;
use tokio::time::{MissedTickBehavior, interval, timeout};
use votes::UnixMillis;

use crate::{Failure, client, exposition::Exposition, interrupted};

/// Where programs listen if nobody says otherwise: all in one, and the four side by side.
const DEFAULT_ADMINS: [&str; 5] = [
    "http://127.0.0.1:9100",
    "http://127.0.0.1:9101",
    "http://127.0.0.1:9102",
    "http://127.0.0.1:9103",
    "http://127.0.0.1:9104",
];

/// How often the parts are asked.
const EVERY: Duration = Duration::from_secs(1);

/// How long a part may take to answer. Its health asks stores, which takes at most two seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Show lag, votes a second, CPU, memory and disk of the running parts
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ovation stats --follow\n  ovation stats --admin http://10.0.0.7:9103 --admin http://10.0.0.8:9103 --json"
)]
pub(crate) struct StatsArgs {
    /// The admin port of a part; may be given more than once
    /// [default: ports 9100 to 9104 of this machine, those that answer]
    #[arg(long, value_name = "URL")]
    admin: Vec<String>,
    /// Go on each second, until Ctrl-C; otherwise it measures for one second
    #[arg(long)]
    follow: bool,
    /// Print a JSON object {time, parts}, with --follow one a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: StatsArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    let shown = stop.run_until_cancelled(show(&args)).await;
    interrupted(shown.unwrap_or(Ok(())))
}

async fn show(args: &StatsArgs) -> Result<(), Failure> {
    let defaults = DEFAULT_ADMINS.map(str::to_owned);
    let admins = if args.admin.is_empty() { &defaults[..] } else { &args.admin };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut printer = Printer { json: args.json, is_terminal: stdout().is_terminal(), lines: 0 };
    let mut before: BTreeMap<&str, Reading> = BTreeMap::new();
    for look in 0.. {
        ticks.tick().await;
        let readings = join_all(admins.iter().map(|admin| async move { (admin.as_str(), read(admin).await) })).await;
        if let (0, Some((_, Err(error)))) = (look, readings.first())
            && readings.iter().all(|(_, reading)| reading.is_err())
        {
            return Err(format!("no part answers; the first of {}: {error}", readings.len()).into());
        }
        let mut parts = Vec::new();
        for (admin, reading) in readings {
            match reading {
                Ok(reading) => {
                    parts.push(reading.part(admin, before.get(admin)));
                    before.insert(admin, reading);
                }
                // Nobody expects all that are asked by default.
                Err(_) if args.admin.is_empty() && !before.contains_key(admin) => {}
                Err(error) => parts.push(Part::silent(admin, before.get(admin), &error)),
            }
        }
        // The first look is what the second is measured from.
        if look > 0 {
            printer.print(&parts)?;
            if !args.follow {
                break;
            }
        }
    }
    Ok(())
}

/// What a part told.
struct Reading {
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

/// How full the part's machine or container is, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Used {
    cpu: Option<f64>,
    memory: Option<f64>,
    disk: Option<f64>,
}

/// What is shown of a part. What it has nothing to do with is absent.
#[derive(Debug, PartialEq, Serialize)]
struct Part {
    admin: String,
    program: String,
    health: String,
    problems: Vec<String>,
    accepted_per_second: Option<f64>,
    refused_per_second: Option<f64>,
    counted_per_second: Option<f64>,
    lag: Option<f64>,
    /// Of one core.
    cpu: Option<f64>,
    memory_bytes: Option<f64>,
    used: Used,
}

/// What `/health` says, as far as it is shown.
#[derive(Deserialize)]
struct Report {
    status: String,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    status: String,
    error: Option<String>,
}

async fn read(admin: &str) -> Result<Reading, Failure> {
    let ask = async { tokio::try_join!(client::get_bytes(admin, "/metrics"), client::get_any(admin, "/health")) };
    let late = |_| format!("{admin} did not answer within {PATIENCE:?}");
    let ((_, metrics), (_, health)) = timeout(PATIENCE, ask).await.map_err(late)??;
    let report: Report = serde_json::from_slice(&health)?;
    Ok(Reading::of(&Exposition::parse(&String::from_utf8_lossy(&metrics)), report))
}

impl Reading {
    fn of(told: &Exposition, report: Report) -> Self {
        let votes = |accepted| told.sum("ovation_votes_total", accepted);
        let accepted = votes(Some(("outcome", "accepted")));
        let lag = told.sum("ovation_partition_lag_votes", None);
        let used = |resource| told.sum("ovation_used_ratio", Some(("resource", resource)));
        let failed = report.checks.into_iter().filter(|check| check.status != "healthy");
        Self {
            at: Instant::now(),
            program: told.label("ovation_build_info", "program").unwrap_or("?").to_owned(),
            health: report.status,
            problems: failed
                .map(|check| format!("{}: {}", check.name, check.error.as_deref().unwrap_or("failed")))
                .collect(),
            accepted,
            refused: votes(None).map(|all| all - accepted.unwrap_or(0.0)),
            // Whoever has partitions counts, even if nothing is there to count.
            counted: told.sum("ovation_counted_votes_total", None).or(lag.map(|_| 0.0)),
            lag,
            cpu_seconds: told
                .sum("ovation_cpu_microseconds_total", None)
                .map(|micros| micros / 1e6)
                .or_else(|| told.sum("process_cpu_seconds_total", None)),
            memory_bytes: told.sum("process_resident_memory_bytes", None),
            used: Used { cpu: used("cpu"), memory: used("memory"), disk: used("disk") },
        }
    }

    fn part(&self, admin: &str, before: Option<&Self>) -> Part {
        let rate = |total: fn(&Self) -> Option<f64>| {
            let (before, now) = (before?, total(self)?);
            // A process that began anew counts from nothing.
            let since = total(before).filter(|since| *since <= now).unwrap_or(0.0);
            Some((now - since) / self.at.duration_since(before.at).as_secs_f64())
        };
        Part {
            admin: admin.to_owned(),
            program: self.program.clone(),
            health: self.health.clone(),
            problems: self.problems.clone(),
            accepted_per_second: rate(|reading| reading.accepted),
            refused_per_second: rate(|reading| reading.refused),
            counted_per_second: rate(|reading| reading.counted),
            lag: self.lag,
            cpu: rate(|reading| reading.cpu_seconds),
            memory_bytes: self.memory_bytes,
            used: self.used,
        }
    }
}

impl Part {
    /// One that does not answer.
    fn silent(admin: &str, before: Option<&Reading>, error: &Failure) -> Self {
        Self {
            admin: admin.to_owned(),
            program: before.map_or("?", |reading| &reading.program).to_owned(),
            health: "silent".to_owned(),
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

    /// As it is shown to people, in the order of [`TITLES`].
    fn cells(&self) -> [String; TITLES.len()] {
        let shown = |value: Option<f64>, show: fn(f64) -> String| value.map_or("-".to_owned(), show);
        let whole = |value: f64| format!("{value:.0}");
        let percent = |value: f64| format!("{:.0}%", value * 100.0);
        [
            self.program.clone(),
            self.health.clone(),
            shown(self.accepted_per_second, whole),
            shown(self.refused_per_second, whole),
            shown(self.counted_per_second, whole),
            shown(self.lag, whole),
            shown(self.cpu, percent),
            shown(self.memory_bytes, |bytes| format!("{:.0}MB", bytes / f64::from(1 << 20))),
            shown(self.used.cpu, percent),
            shown(self.used.memory, percent),
            shown(self.used.disk, percent),
        ]
    }
}

/// The first two are texts, the others numbers: those of the process, then how full its machine is.
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
    /// How many the last block had.
    lines: usize,
}

impl Printer {
    fn print(&mut self, parts: &[Part]) -> io::Result<()> {
        let (now, mut out) = (UnixMillis::now(), stdout().lock());
        if self.json {
            serde_json::to_writer(&mut out, &serde_json::json!({ "time": now.0, "parts": parts }))?;
            writeln!(out)?;
        } else if self.is_terminal {
            let block = block(parts);
            if self.lines > 0 {
                // Up to where the last one began, and clear what follows.
                write!(out, "\x1b[{}A\x1b[J", self.lines)?;
            }
            self.lines = block.len();
            for line in block {
                writeln!(out, "{line}")?;
            }
        } else {
            for part in parts {
                let named = TITLES.iter().zip(part.cells()).skip(2).map(|(title, cell)| format!("  {title} {cell}"));
                let problems = part.problems.iter().map(|problem| format!("  {problem}"));
                let rest: String = named.chain(problems).collect();
                writeln!(out, "{now}  {}  {}{rest}", part.program, part.health)?;
            }
        }
        out.flush()
    }
}

/// A table, and what is wrong below it.
fn block(parts: &[Part]) -> Vec<String> {
    let rows: Vec<[String; TITLES.len()]> =
        [TITLES.map(str::to_owned)].into_iter().chain(parts.iter().map(Part::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; TITLES.len()]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match (column, width(column)) {
            (0 | 1, width) => format!("{cell:<width$}"),
            (_, width) => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    let problems =
        parts.iter().flat_map(|part| part.problems.iter().map(|problem| format!("{}: {problem}", part.program)));
    rows.iter().map(line).chain(problems).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(metrics: &str) -> Reading {
        let report = Report { status: "healthy".to_owned(), checks: Vec::new() };
        Reading::of(&Exposition::parse(metrics), report)
    }

    #[test]
    fn a_rate_is_what_came_since_the_last_reading() {
        let mut before = reading("ovation_votes_total{outcome=\"accepted\"} 100\nlag 1\n");
        let now =
            reading("ovation_votes_total{outcome=\"accepted\"} 350\novation_votes_total{outcome=\"closed\"} 50\n");
        before.at = now.at.checked_sub(Duration::from_millis(500)).unwrap();
        let part = now.part("here", Some(&before));
        assert_eq!((part.accepted_per_second, part.refused_per_second), (Some(500.0), Some(100.0)));
        assert_eq!((part.counted_per_second, part.lag), (None, None));
        // Begun anew.
        let mut anew = reading("ovation_votes_total{outcome=\"accepted\"} 20\n");
        anew.at = now.at + Duration::from_secs(1);
        assert_eq!(anew.part("here", Some(&now)).accepted_per_second, Some(20.0));
        assert_eq!(now.part("here", None).accepted_per_second, None);
    }

    #[test]
    fn a_table_has_a_line_for_each_part_and_each_problem() {
        let failed = Part::silent("http://x", None, &"it is gone".into());
        let lines = block(&[reading("ovation_partition_lag_votes{partition=\"0\"} 7\n").part("here", None), failed]);
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("program  health"));
        assert_eq!(lines[0].len(), lines[1].len());
        assert_eq!(lines[3], "?: it is gone");
    }
}
