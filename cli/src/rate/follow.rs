//! `ovation rate --follow`: prints each period when it is settled, that is, when no more votes can be counted in it. So
//! the number of votes of a printed period does not change later.
//!
//! The results service determines which periods are settled: see `GET /v1/rates/settled`.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IsTerminal, Write, stdout},
    process::ExitCode,
    time::Duration,
};

use api::{RateWindow, SettledRates};
use client::http::{self, ClientError};
use service::{CancellationToken, program::Failure};
use tokio::time::sleep;
use votes::{UnixMillis, Window};

use super::{
    args::RateArgs,
    sparkline::{MAX_PERIODS, sparkline},
};
use crate::interrupt::exit_code;

/// The limits of the interval between two requests. Within these limits, the interval is a quarter of a period.
const POLL_INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(1);

pub(super) async fn run(args: &RateArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    let outcome = stop.run_until_cancelled(follow(args)).await;
    exit_code(outcome.unwrap_or(Ok(())))
}

async fn follow(args: &RateArgs) -> Result<(), Failure> {
    let every = Duration::from_millis(args.every.millis().unsigned_abs());
    let pause = (every / 4).clamp(*POLL_INTERVAL.start(), *POLL_INTERVAL.end());
    let mut printer = Printer { every: args.every, json: args.json, total: 0, recent: VecDeque::new() };
    let mut next: Option<i64> = None;
    let mut is_unavailable = false;
    loop {
        let path = match next {
            None => args.path("/settled", args.last),
            Some(from) => format!("{}&from={}", args.path("/settled", None), from),
        };
        match http::get::<SettledRates>(&args.url, &path).await {
            Ok(settled) => {
                printer.print(&settled)?;
                next = Some(settled.before);
                is_unavailable = false;
            }
            // The next response begins with the first period that was not printed, so no period is missing.
            Err(error) if next.is_some() && is_temporary(&error) => {
                if !is_unavailable {
                    eprintln!("{error}; trying again");
                }
                is_unavailable = true;
            }
            Err(error) => return Err(error.into()),
        }
        sleep(pause).await;
    }
}

/// Returns whether a later request can succeed.
fn is_temporary(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => status.is_server_error(),
        ClientError::Url(_) | ClientError::Unexpected { .. } => false,
    }
}

struct Printer {
    every: Window,
    json: bool,
    total: u64,
    /// The votes of the last periods.
    recent: VecDeque<u64>,
}

impl Printer {
    fn print(&mut self, settled: &SettledRates) -> io::Result<()> {
        let (is_terminal, mut out) = (stdout().is_terminal(), stdout().lock());
        let votes: HashMap<i64, u64> = settled.windows.iter().map(|window| (window.start, window.votes)).collect();
        let mut start = settled.from;
        while start < settled.before {
            let window = RateWindow { start, votes: votes.get(&start).copied().unwrap_or(0) };
            self.print_line(&mut out, window, is_terminal)?;
            start += self.every.millis();
        }
        out.flush()
    }

    fn print_line(&mut self, out: &mut impl Write, window: RateWindow, is_terminal: bool) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, &window)?;
            return writeln!(out);
        }
        let RateWindow { start, votes } = window;
        write!(out, "{}  {votes:>8}", UnixMillis(start))?;
        if is_terminal {
            self.total += votes;
            self.recent.push_back(votes);
            if self.recent.len() > MAX_PERIODS {
                self.recent.pop_front();
            }
            write!(out, "  {:>10}  {}", self.total, sparkline(&self.recent))?;
        }
        writeln!(out)
    }
}
