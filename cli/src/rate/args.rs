//! The flags of `ovation rate`.

use std::time::Duration;

use clap::Args;
use votes::{ContestId, Window, parse_duration};

/// Show how many votes were accepted in each period
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ovation rate --every 1s --last 60s\n  ovation rate --every 10ms --follow --json > rates.ndjson"
)]
pub(crate) struct RateArgs {
    /// The URL of the results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(super) url: String,
    /// The length of a period: 10ms, 1s or 1m
    #[arg(long, default_value = "1s")]
    pub(super) every: Window,
    /// How far back the first printed period is, like 60s or 5m; periods of 10ms are stored for 15 minutes, those of 1s
    /// for 24 hours [default: 60s; with --follow, print only new periods]
    #[arg(long, value_parser = parse_duration)]
    pub(super) last: Option<Duration>,
    /// Print each period when all its votes are counted, some seconds after its end, until Ctrl-C
    #[arg(long)]
    pub(super) follow: bool,
    /// Only votes of this contest [default: all contests]
    #[arg(long)]
    pub(super) contest: Option<ContestId>,
    /// Print a JSON array of {start, votes}, with --follow one such object per line; start is Unix time in milliseconds
    #[arg(long)]
    pub(super) json: bool,
}

impl RateArgs {
    /// Returns the path of `/v1/rates` with `suffix`, and the query.
    pub(super) fn path(&self, suffix: &str, last: Option<Duration>) -> String {
        let last = last.map_or_else(String::new, |last| format!("&last={}ms", last.as_millis()));
        let contest = self.contest.as_ref().map_or_else(String::new, |contest| format!("&contest={contest}"));
        format!("/v1/rates{suffix}?every={}{last}{contest}", self.every)
    }
}
