//! `ovation audit`: recounts the log and the ledger, and compares both with the tallies.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use service::{Config, config::StoreFlags, health::Criticality, program::Failure};
use stores::{Access, Stores};
use tokio::{time::timeout, try_join};
use votes::{AuditReport, LogReader, Partition, StoreError, Tallies};

/// The longest time in which the consumers may count no record. After that, the audit reports that they do not count.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// A version that tallies never have. With it, [`Tallies::changed`] returns the current version at once.
const NO_VERSION: u64 = u64::MAX;

/// Prove the result: recount the log and the ledger, and compare both with the tallies
#[derive(Args, Serialize)]
#[command(after_help = "The audit works while the system runs, and while it is stopped.\n\n\
    Exit code: 0 if there is no difference, 1 if there is a difference or the audit failed, 64 for an invalid command line or configuration.\n\n\
    Example:\n  ovation audit --data ovation-data --json")]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
    /// Print one JSON object
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

pub(crate) async fn run(args: AuditArgs) -> Result<ExitCode, Failure> {
    let json = args.json;
    let config = Config::load(None, args, 0)?;
    let has_consumers = Stores::has_consumers(&config).await?;
    let stores = Stores::open_for_command(&config, Access::Read)?;
    let (log_reader, ledger, tallies) = try_join!(
        stores.standalone_log_reader(Criticality::Required),
        stores.ledger(Criticality::Required),
        stores.tallies(Criticality::Required)
    )?;
    let is_stalled = has_consumers && !wait_until_counted(&*log_reader, &*tallies).await?;
    let integrity_errors = Stores::integrity_errors(&config)?;

    let bar = progress_bar();
    let mut report = votes::audit(&*log_reader, &*ledger, &*tallies, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await?;
    bar.finish_and_clear();

    report.differences.extend(integrity_errors);
    if is_stalled {
        let seconds = CATCH_UP_TIMEOUT.as_secs();
        let difference =
            format!("{} records on the log are not counted, and none was counted within {seconds} s", report.uncounted);
        report.differences.push(difference);
    }
    report.ok = report.differences.is_empty();
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report, has_consumers);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the consumers have counted the records that the log has now. Returns `false` if they count no record
/// within [`CATCH_UP_TIMEOUT`].
async fn wait_until_counted(log_reader: &dyn LogReader, tallies: &dyn Tallies) -> Result<bool, StoreError> {
    for partition in (0..log_reader.partitions()).map(Partition) {
        let end = log_reader.bounds(partition).await?.end;
        loop {
            let version = tallies.changed(NO_VERSION).await?;
            if tallies.position(partition).await?.offset >= end {
                break;
            }
            if timeout(CATCH_UP_TIMEOUT, tallies.changed(version)).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn progress_bar() -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("recounting {wide_bar} {human_pos}/{human_len} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print_report(report: &AuditReport, has_consumers: bool) {
    println!("log           {:>12}  records", report.log);
    println!("dead letters  {:>12}  records that are not votes", report.dead_letters);
    if report.foreign_records > 0 {
        println!(
            "foreign       {:>12}  records of another program among the dead letters; they were skipped",
            report.foreign_records
        );
    }
    println!("duplicates    {:>12}  records that repeat a ballot", report.duplicates);
    println!("ledger        {:>12}  votes", report.ledger);
    println!("tallies       {:>12}  votes", report.tallies);
    if report.expired > 0 {
        println!(
            "expired       {:>12}  votes that are no longer on the log, or only in the summaries of the ledger",
            report.expired
        );
    }
    if report.unseen > 0 {
        println!(
            "unseen        {:>12}  of these expired from the ledger while the audit ran, before it compared them",
            report.unseen
        );
    }
    if let Some(seconds) = report.youngest_expired_seconds {
        println!(
            "youngest      {seconds:>12.1}  seconds on the log: the age of the youngest vote that expired from the ledger"
        );
    }
    if report.uncounted > 0 {
        println!(
            "uncounted     {:>12}  records on the log that are not counted yet{}",
            report.uncounted,
            if has_consumers { "" } else { "; no consumer is running" }
        );
    }
    if !report.ok {
        println!("NOT OK:");
        report.differences.iter().for_each(|difference| println!("  {difference}"));
    } else if report.uncounted > 0 {
        println!("ok: every vote on the log is counted once, except for the uncounted records");
    } else {
        println!("ok: every vote on the log is counted once");
    }
}
