//! `ovation audit`: recounts the log and the book, and compares both with the tallies.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use backends::{Access, Stores};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use service::{Config, config::StoreFlags, health::Weight};
use tokio::{time::timeout, try_join};
use votes::{AuditReport, Partition, StoreError, Tallies, VoteFeed};

use crate::Failure;

/// How long a running system may make no progress before the audit says that it does not count.
const PATIENCE: Duration = Duration::from_secs(10);

/// No tallies have this version, so asking for a change of it answers at once.
const NO_VERSION: u64 = u64::MAX;

/// Prove the result: recount the log and the book, and compare both with the tallies
#[derive(Args, Serialize)]
#[command(
    after_help = "Exits 0 if and only if nothing differs. Works while the system runs, and while it is stopped.\n\n\
    Example:\n  ovation audit --data ovation-data --json"
)]
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
    let is_live = Stores::are_counting(&config).await?;
    let stores = Stores::open_for_command(&config, Access::Read)?;
    let (feed, book, tallies) =
        try_join!(stores.reader(Weight::Vital), stores.book(Weight::Vital), stores.tallies(Weight::Vital))?;
    let is_stuck = is_live && !catch_up(&*feed, &*tallies).await?;
    let damage = Stores::damage(&config)?;

    let bar = progress_bar();
    let mut report = votes::audit(&*feed, &*book, &*tallies, &mut |done, todo| {
        bar.set_length(todo);
        bar.set_position(done);
    })
    .await?;
    bar.finish_and_clear();

    report.differences.extend(damage);
    if is_stuck {
        let waited = PATIENCE.as_secs();
        let problem = format!("{} votes on the log are not counted, and for {waited} s none was", report.uncounted);
        report.differences.push(problem);
    }
    report.ok = report.differences.is_empty();
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the running system has counted what is on the log now; `false` if it does not.
async fn catch_up(feed: &dyn VoteFeed, tallies: &dyn Tallies) -> Result<bool, StoreError> {
    for partition in (0..feed.partitions()).map(Partition) {
        let end = feed.bounds(partition).await?.end;
        loop {
            let seen = tallies.changed(NO_VERSION).await?;
            if tallies.position(partition).await? >= end {
                break;
            }
            if timeout(PATIENCE, tallies.changed(seen)).await.is_err() {
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

fn print(report: &AuditReport) {
    println!("log         {:>12}  records", report.log);
    println!("dead        {:>12}  records that are no votes", report.dead);
    println!("duplicates  {:>12}  records that repeat a ballot", report.duplicates);
    println!("book        {:>12}  votes", report.book);
    println!("tallies     {:>12}  votes", report.tallies);
    if report.expired > 0 {
        println!("expired     {:>12}  votes that the log no longer has, or only the book's summaries", report.expired);
    }
    if report.uncounted > 0 {
        println!(
            "uncounted   {:>12}  records, durable on the log, that are counted when the system runs",
            report.uncounted
        );
    }
    if report.ok {
        println!("ok: every vote on the log is counted once");
    } else {
        println!("NOT OK:");
        report.differences.iter().for_each(|difference| println!("  {difference}"));
    }
}
