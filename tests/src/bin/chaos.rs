//! `dev/chaos` floods the real programs on real servers, injects random faults, and checks every promise.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use tests::chaos::{Options, run};

/// Flood Ovation on real servers, inject random faults, and check that every vote is counted once
#[derive(Parser)]
#[command(name = "dev/chaos", after_help = "Example:\n  dev/chaos --minutes 10 --seed 7")]
struct Flags {
    /// The length of the flood in minutes
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The seed of the plan of faults [default: random]. The same seed gives the same plan
    #[arg(long)]
    seed: Option<u64>,
    /// Votes per second
    #[arg(long, default_value_t = 400.0)]
    rate: f64,
    /// The number of Kafka brokers
    #[arg(long, default_value_t = 1)]
    brokers: u16,
    /// The folder of the servers' data and all logs
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
    /// The first of 40 consecutive ports
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
