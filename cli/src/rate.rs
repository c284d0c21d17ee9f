//! `ovation rate`: votes in each period of time, by acceptance.

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use votes::{ContestId, RateWindow, Window};

use crate::{Failure, client, duration};

/// Show how many votes were accepted in each period
#[derive(Args)]
#[command(after_help = "Example:\n  ovation rate --every 1s --last 60s")]
pub(crate) struct RateArgs {
    /// The results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The period: 10ms, 1s or 1m
    #[arg(long, default_value = "1s")]
    every: Window,
    /// How far back to look, like 60s or 5m
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    last: Duration,
    /// Only this contest [default: all]
    #[arg(long)]
    contest: Option<ContestId>,
    /// Print a JSON array of {start, votes}; start is Unix time in milliseconds
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: RateArgs) -> Result<ExitCode, Failure> {
    let contest = args.contest.map_or_else(String::new, |contest| format!("&contest={contest}"));
    let path = format!("/v1/rates?every={}&last={}ms{contest}", args.every, args.last.as_millis());
    let windows: Vec<RateWindow> = client::get(&args.url, &path).await?;
    if args.json {
        println!("{}", serde_json::to_string(&windows)?);
        return Ok(ExitCode::SUCCESS);
    }
    let most = windows.iter().map(|window| window.votes).max().unwrap_or(0);
    for window in &windows {
        println!("{}  {:>8}{}", window.start, window.votes, bar(window.votes, most));
    }
    let total: u64 = windows.iter().map(|window| window.votes).sum();
    println!("{total} votes in {} periods of {} with votes", windows.len(), args.every);
    Ok(ExitCode::SUCCESS)
}

/// On a terminal, a bar of up to 40 blocks.
fn bar(votes: u64, most: u64) -> String {
    if !stdout().is_terminal() {
        return String::new();
    }
    let blocks = usize::try_from(votes * 40 / most.max(1)).unwrap_or(0);
    format!("  {}", "█".repeat(blocks))
}
