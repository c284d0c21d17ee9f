//! The flags of `ovation study`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use hyper::Uri;
use serde::Serialize;
use service::config::StoreFlags;
use votes::parse_duration;

use super::turns::{self, Turn};
use crate::admin;

/// Measure the three ways to execute a query: with a connection for each query, with a pool, and with the cache
///
/// Creates the dataset read-study in the ledger of --ledger (or of the environment, or of ovation.toml), sends queries
/// to the service at --url, and removes the dataset at the end. The service must use the same stores. An existing
/// dataset of that name is replaced. The cache must have room for the answers to all queries, which have some MB each:
/// start the service with --cache-bytes 268435456, and leave the same amount of memory free in Redis. Writes report.md,
/// study.json and up to three plots.
///
/// Exit code: 0 if everything was measured and every answer was right; 1 if not; 64 for an invalid command line or
/// configuration.
#[derive(Args, Clone, Debug, Serialize)]
#[command(
    after_help = "Example:\n  ovation up --cache-bytes 268435456 &\n  ovation study --admin http://127.0.0.1:9100 --out study\n\n\
    The URLs of the three stores are in the environment, as `dev/stack env` prints them."
)]
pub struct StudyArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) stores: StoreFlags,
    /// The URL of the results service
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    #[serde(skip)]
    pub(super) url: Uri,
    /// The admin port of the results service, for its metrics of cache hits and misses; port 9100 for `ovation up`, or
    /// `none`
    #[arg(long, default_value = "http://127.0.0.1:9104", value_name = "URL")]
    #[serde(skip)]
    pub(super) admin: String,
    /// A file with the read token of the service
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    #[serde(skip)]
    pub(super) read_token_file: Option<PathBuf>,
    /// The number of rows in the dataset at the start
    #[arg(long, default_value_t = 60_000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    #[serde(skip)]
    pub(super) rows: u32,
    /// The number of queries; each returns 35 % of the rows
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    pub(super) queries: u32,
    /// The exponent of Zipf's law: the n-th query is sent n^EXPONENT times less often than the first
    #[arg(long, default_value_t = 1.0, value_name = "EXPONENT")]
    #[serde(skip)]
    pub(super) exponent: f64,
    /// The number of readers, which send queries at the same time
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    pub(super) users: u32,
    /// The pause of a reader between an answer and the next query
    #[arg(long, default_value = "233ms", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(skip)]
    pub(super) pause: Duration,
    /// The number of rounds; each round measures every way twice, in alternating order
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    pub(super) rounds: u32,
    /// The length of one measurement; in a round, each way has two measurements
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(skip)]
    pub(super) seconds: Duration,
    /// The interval between two changes, which are alternately a new row and the clearing of all cached responses; the
    /// first change is after half of the interval
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(skip)]
    pub(super) change_every: Duration,
    /// The seed of the random rows and queries
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[serde(skip)]
    pub(super) seed: u64,
    /// The name of the ledger's server for the report, in addition to the version that the server reports
    #[arg(long, value_name = "NAME")]
    #[serde(skip)]
    pub(super) ledger_server: Option<String>,
    /// The folder of the report
    #[arg(long, default_value = "study", value_name = "DIR")]
    #[serde(skip)]
    pub(super) out: PathBuf,
    /// Print the summary as one JSON object
    #[arg(long)]
    #[serde(skip)]
    pub(super) json: bool,
}

impl StudyArgs {
    /// Returns the number of changes during one measurement.
    pub(super) fn changes(&self) -> u32 {
        let half = self.change_every / 2;
        let mut changes = 0;
        while half + self.change_every * changes < self.seconds {
            changes += 1;
        }
        changes
    }

    /// Returns the admin port of the service, if it is reachable.
    pub(super) fn admin(&self) -> Option<&str> {
        admin::address(&self.admin)
    }

    /// Returns all turns, in their order.
    pub(super) fn turns(&self) -> Vec<Turn> {
        turns::in_rounds(self.rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::turns::Way, *};

    #[test]
    fn each_round_has_alternating_order_and_each_way_has_as_many_turns() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            study: StudyArgs,
        }
        let Alone { study } = clap::Parser::parse_from(["study"]);
        let turns = study.turns();
        let ways: Vec<&str> = turns.iter().map(|turn| turn.way.name()).collect();
        assert_eq!(ways, ["direct", "pool", "cache", "cache", "pool", "direct"]);
        for way in Way::ALL {
            let numbers: Vec<u32> = turns.iter().filter(|turn| turn.way == way).map(|turn| turn.number).collect();
            assert_eq!(numbers, [0, 1]);
        }
        assert_eq!(study.seconds * 2, Duration::from_mins(1), "each way has a minute");
        assert_eq!(study.changes(), 1);
    }
}
