//! `dev/chaos`: floods the real programs on the real servers, breaks them at random, and checks every promise.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use tests::chaos::{Options, run};

/// Flood Ovation on real servers, break things at random, and check that every vote is counted once
#[derive(Parser)]
#[command(name = "dev/chaos", after_help = "Example:\n  dev/chaos --minutes 10 --seed 7")]
struct Flags {
    /// How long to flood it
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Which plan of faults; a random one if absent. The same seed gives the same plan
    #[arg(long)]
    seed: Option<u64>,
    /// Votes a second
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// Kafka brokers
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// Where the servers' data and all logs are
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// The first of 40 ports
    #[arg(long, default_value_t = 19_400)]
    port: u16,
}

fn main() -> ExitCode {
    let Flags { minutes, seed, rate, brokers, folder, port } = Flags::parse();
    let seed = seed.unwrap_or_else(|| rand::random_range(0..10_000));
    let length = Duration::from_secs_f64(minutes * 60.0);
    let report = run(&Options { length, seed, rate, brokers, folder, port });
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
