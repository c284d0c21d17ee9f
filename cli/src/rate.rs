//! `ovation rate`: votes in each period of time, by acceptance.

mod follow;
mod sparkline;

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use service::CancellationToken;
use votes::{ContestId, RateWindow, Window};

use self::sparkline::sparkline;
use crate::{Failure, client, duration};

/// How far one looks back if nothing else is said.
const DEFAULT_LAST: Duration = Duration::from_mins(1);

/// The most periods of a sparkline: a line of --follow fits into 80 columns.
const SPARKLINE: usize = 30;

/// Show how many votes were accepted in each period
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ovation rate --every 1s --last 60s\n  ovation rate --every 10ms --follow --json > rates.ndjson"
)]
pub(crate) struct RateArgs {
    /// The results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The period: 10ms, 1s or 1m
    #[arg(long, default_value = "1s")]
    every: Window,
    /// How far back to look, like 60s or 5m; periods of 10ms are kept for 15 minutes, those of 1s for 24 hours
    /// [default: 60s, with --follow: from now on]
    #[arg(long, value_parser = duration::parse)]
    last: Option<Duration>,
    /// Print each period once it is complete, until Ctrl-C: some seconds after its end, when all its votes are counted
    #[arg(long)]
    follow: bool,
    /// Only this contest [default: all]
    #[arg(long)]
    contest: Option<ContestId>,
    /// Print a JSON array of {start, votes}, with --follow one such object a line; start is Unix time in milliseconds
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(mut args: RateArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    if let Some(kept) = args.every.kept_for().filter(|kept| args.last.is_some_and(|last| last > *kept)) {
        let (every, minutes) = (args.every, kept.as_secs() / 60);
        eprintln!("periods of {every} are kept for {minutes} minutes: showing those; longer ones are kept for longer");
        args.last = Some(kept);
    }
    if args.follow {
        return follow::run(&args, stop).await;
    }
    let windows: Vec<RateWindow> = client::get(&args.url, &args.path("", args.last.or(Some(DEFAULT_LAST)))).await?;
    if args.json {
        println!("{}", serde_json::to_string(&windows)?);
        return Ok(ExitCode::SUCCESS);
    }
    let most = windows.iter().map(|window| window.votes).max().unwrap_or(0);
    for window in &windows {
        println!("{}  {:>8}{}", window.start, window.votes, bar(window.votes, most));
    }
    let total: u64 = windows.iter().map(|window| window.votes).sum();
    let summary = if stdout().is_terminal() { format!("  {}", line_of(&windows, args.every)) } else { String::new() };
    println!("{total} votes in {} periods of {} with votes{summary}", windows.len(), args.every);
    Ok(ExitCode::SUCCESS)
}

impl RateArgs {
    /// The path of the rates, or of those below them.
    fn path(&self, below: &str, last: Option<Duration>) -> String {
        let last = last.map_or_else(String::new, |last| format!("&last={}ms", last.as_millis()));
        let contest = self.contest.as_ref().map_or_else(String::new, |contest| format!("&contest={contest}"));
        format!("/v1/rates{below}?every={}{last}{contest}", self.every)
    }
}

/// On a terminal, a bar of up to 40 blocks.
fn bar(votes: u64, most: u64) -> String {
    if !stdout().is_terminal() {
        return String::new();
    }
    let blocks = usize::try_from(votes * 40 / most.max(1)).unwrap_or(0);
    format!("  {}", "█".repeat(blocks))
}

/// The last periods up to the last one with votes; those between that have none are left out of the answer.
fn line_of(windows: &[RateWindow], every: Window) -> String {
    let Some(last) = windows.last() else { return String::new() };
    let mut periods = vec![0; SPARKLINE];
    for window in windows {
        let ago = usize::try_from((last.start.0 - window.start.0) / every.millis()).unwrap_or(usize::MAX);
        if let Some(period) = periods.iter_mut().nth_back(ago) {
            *period = window.votes;
        }
    }
    let first = windows.first().map_or(last.start.0, |first| first.start.0);
    let shown = usize::try_from((last.start.0 - first) / every.millis() + 1).unwrap_or(SPARKLINE).min(SPARKLINE);
    sparkline(&periods[SPARKLINE - shown..])
}

#[cfg(test)]
mod tests {
    use votes::UnixMillis;

    use super::*;

    fn line(windows: &[(i64, u64)]) -> String {
        let window = |&(start, votes): &(i64, u64)| RateWindow { start: UnixMillis(start), votes };
        line_of(&windows.iter().map(window).collect::<Vec<_>>(), Window::Second)
    }

    #[test]
    fn the_line_has_the_periods_without_votes_too() {
        assert_eq!(line(&[]), "");
        assert_eq!(line(&[(5_000, 3)]), "█");
        assert_eq!(line(&[(5_000, 7), (8_000, 7)]), "█▁▁█");
        // Only the last ones.
        assert_eq!(line(&[(0, 7), (1_000_000, 7)]).chars().count(), SPARKLINE);
    }
}
