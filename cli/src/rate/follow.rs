//! `ovation rate --follow`: each period once no vote can join it any more, so nothing that was printed ever changes.
//!
//! Which periods these are, the results service knows: see `GET /v1/rates/settled`.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IsTerminal, Write, stdout},
    process::ExitCode,
    time::Duration,
};

use serde::Deserialize;
use service::CancellationToken;
use tokio::time::sleep;
use votes::{RateWindow, UnixMillis, Window};

use super::{RateArgs, SPARKLINE, sparkline::sparkline};
use crate::{
    Failure,
    client::{self, ClientError},
    interrupted,
};

/// How often it is asked whether there is more: four times a period, and between these.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_secs(1);

/// The answer of the results.
#[derive(Deserialize)]
struct Settled {
    from: UnixMillis,
    before: UnixMillis,
    windows: Vec<RateWindow>,
}

pub(super) async fn run(args: &RateArgs, stop: CancellationToken) -> Result<ExitCode, Failure> {
    let followed = stop.run_until_cancelled(follow(args)).await;
    interrupted(followed.unwrap_or(Ok(())))
}

async fn follow(args: &RateArgs) -> Result<(), Failure> {
    let every = Duration::from_millis(args.every.millis().unsigned_abs());
    let pause = (every / 4).clamp(*PAUSE.start(), *PAUSE.end());
    let mut printer = Printer { every: args.every, json: args.json, total: 0, recent: VecDeque::new() };
    let mut next: Option<UnixMillis> = None;
    let mut is_away = false;
    loop {
        let path = match next {
            None => args.path("/settled", args.last),
            Some(from) => format!("{}&from={}", args.path("/settled", None), from.0),
        };
        match client::get::<Settled>(&args.url, &path).await {
            Ok(settled) => {
                printer.print(&settled)?;
                next = Some(settled.before);
                is_away = false;
            }
            // Nothing is missed meanwhile: it goes on with the next period.
            Err(error) if next.is_some() && passes(&error) => {
                if !is_away {
                    eprintln!("{error}; waiting");
                }
                is_away = true;
            }
            Err(error) => return Err(error.into()),
        }
        sleep(pause).await;
    }
}

/// Whether it may be over by itself.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => status.is_server_error(),
        ClientError::Url(_) | ClientError::Token(..) | ClientError::Unexpected { .. } => false,
    }
}

struct Printer {
    every: Window,
    json: bool,
    total: u64,
    /// The last periods' votes.
    recent: VecDeque<u64>,
}

impl Printer {
    fn print(&mut self, settled: &Settled) -> io::Result<()> {
        let (is_terminal, mut out) = (stdout().is_terminal(), stdout().lock());
        let votes: HashMap<i64, u64> = settled.windows.iter().map(|window| (window.start.0, window.votes)).collect();
        let mut start = settled.from;
        while start < settled.before {
            let window = RateWindow { start, votes: votes.get(&start.0).copied().unwrap_or(0) };
            self.line(&mut out, window, is_terminal)?;
            start.0 += self.every.millis();
        }
        out.flush()
    }

    fn line(&mut self, out: &mut impl Write, window: RateWindow, is_terminal: bool) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, &window)?;
            return writeln!(out);
        }
        let RateWindow { start, votes } = window;
        write!(out, "{start}  {votes:>8}")?;
        if is_terminal {
            self.total += votes;
            self.recent.push_back(votes);
            if self.recent.len() > SPARKLINE {
                self.recent.pop_front();
            }
            write!(out, "  {:>10}  {}", self.total, sparkline(&self.recent))?;
        }
        writeln!(out)
    }
}
