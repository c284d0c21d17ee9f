//! `ovation rate`: shows how many votes were accepted in each period.

mod args;
mod follow;
mod sparkline;

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
    time::Duration,
};

use api::RateWindow;
use client::http;
use service::{CancellationToken, program::Failure};
use votes::{UnixMillis, Window};

pub(crate) use self::args::RateArgs;
use self::sparkline::{MAX_PERIODS, sparkline};

/// The default of `--last` without `--follow`.
const DEFAULT_LAST: Duration = Duration::from_mins(1);

pub(crate) async fn run(mut args: RateArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    if let Some(retained) = args.every.retention().filter(|retained| args.last.is_some_and(|last| last > *retained)) {
        let (every, minutes) = (args.every, retained.as_secs() / 60);
        eprintln!(
            "periods of {every} are stored for {minutes} minutes, so only these are printed; longer periods are stored longer"
        );
        args.last = Some(retained);
    }
    if args.follow {
        return follow::run(&args, stop).await;
    }
    let windows: Vec<RateWindow> = http::get(&args.url, &args.path("", args.last.or(Some(DEFAULT_LAST)))).await?;
    if args.json {
        println!("{}", serde_json::to_string(&windows)?);
        return Ok(ExitCode::SUCCESS);
    }
    let max = windows.iter().map(|window| window.votes).max().unwrap_or(0);
    for window in &windows {
        println!("{}  {:>8}{}", UnixMillis(window.start), window.votes, bar(window.votes, max));
    }
    let total: u64 = windows.iter().map(|window| window.votes).sum();
    let summary =
        if stdout().is_terminal() { format!("  {}", sparkline_of(&windows, args.every)) } else { String::new() };
    println!("{total} votes in {} periods of {} with votes{summary}", windows.len(), args.every);
    Ok(ExitCode::SUCCESS)
}

/// Returns a bar of up to 40 blocks on a terminal, otherwise an empty text.
fn bar(votes: u64, max: u64) -> String {
    if !stdout().is_terminal() {
        return String::new();
    }
    let blocks = usize::try_from(votes * 40 / max.max(1)).unwrap_or(0);
    format!("  {}", "█".repeat(blocks))
}

/// Returns a sparkline of the periods from the first to the last period with votes, at most the last [`MAX_PERIODS`] of
/// them. `windows` has only the periods with votes.
fn sparkline_of(windows: &[RateWindow], every: Window) -> String {
    let Some(last) = windows.last() else { return String::new() };
    let mut periods = vec![0; MAX_PERIODS];
    for window in windows {
        let ago = usize::try_from((last.start - window.start) / every.millis()).unwrap_or(usize::MAX);
        if let Some(period) = periods.iter_mut().nth_back(ago) {
            *period = window.votes;
        }
    }
    let first = windows.first().map_or(last.start, |first| first.start);
    let count = usize::try_from((last.start - first) / every.millis() + 1).unwrap_or(MAX_PERIODS).min(MAX_PERIODS);
    sparkline(&periods[MAX_PERIODS - count..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(windows: &[(i64, u64)]) -> String {
        let window = |&(start, votes): &(i64, u64)| RateWindow { start, votes };
        sparkline_of(&windows.iter().map(window).collect::<Vec<_>>(), Window::Second)
    }

    #[test]
    fn the_sparkline_includes_periods_without_votes() {
        assert_eq!(line(&[]), "");
        assert_eq!(line(&[(5_000, 3)]), "█");
        assert_eq!(line(&[(5_000, 7), (8_000, 7)]), "█▁▁█");
        // The sparkline has only the last periods.
        assert_eq!(line(&[(0, 7), (1_000_000, 7)]).chars().count(), MAX_PERIODS);
    }
}
