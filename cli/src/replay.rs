//! `ovation replay`: rebuilds the tallies from the ledger, or the ledger from the log.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use service::{Config, config::StoreFlags, health::Criticality, program::Failure};
use stores::{Access, Stores};
use votes::{ClearCondition, Offset, Partition};

/// Rebuild the tallies from the ledger, or the ledger from the vote log
#[derive(Args)]
#[command(after_help = "Example:\n  ovation replay tallies --vote-log kafka://127.0.0.1:9092/votes \
    --tallies redis://127.0.0.1:6379 --ledger mongodb://127.0.0.1:27017/ovation")]
pub(crate) struct ReplayArgs {
    #[command(subcommand)]
    target: Target,
}

#[derive(Subcommand)]
enum Target {
    /// Clear the tallies and their positions in one step. Running consumers then count the tallies again from the
    /// ledger. Meanwhile, producers continue to accept votes
    Tallies(TalliesFlags),
    /// Make consumers record the log in the ledger again, from its start or from an offset. No consumer may be running
    Ledger(LedgerFlags),
}

#[derive(Args, Serialize)]
struct TalliesFlags {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
}

#[derive(Args, Serialize)]
struct LedgerFlags {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip)]
    partition: Option<u16>,
    /// Start at this offset of the partition [default: the start of the log]
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    #[serde(skip)]
    from: Option<u64>,
}

pub(crate) async fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    match args.target {
        Target::Tallies(flags) => tallies(flags).await,
        Target::Ledger(flags) => ledger(flags).await,
    }
}

async fn tallies(flags: TalliesFlags) -> Result<ExitCode, Failure> {
    let stores = Stores::open_for_command(&Config::load(None, flags, 0)?, Access::Write)?;
    stores.tallies(Criticality::Required).await?.clear(ClearCondition::Always).await?;
    println!("the tallies are cleared; consumers count them again from the ledger");
    Ok(ExitCode::SUCCESS)
}

async fn ledger(flags: LedgerFlags) -> Result<ExitCode, Failure> {
    let (only, from) = (flags.partition, flags.from);
    let config = Config::load(None, flags, 0)?;
    if Stores::has_consumers(&config).await? {
        return Err(
            "consumers are running; stop them first, because they would continue from their current positions".into()
        );
    }
    let stores = Stores::open_for_command(&config, Access::Write)?;
    let (log_reader, ledger) =
        (stores.standalone_log_reader(Criticality::Required).await?, stores.ledger(Criticality::Required).await?);
    if let Some(only) = only.filter(|only| *only >= log_reader.partitions()) {
        return Err(format!(
            "there is no partition {only}; the log has {} partitions, counted from 0",
            log_reader.partitions()
        )
        .into());
    }
    let partitions = (0..log_reader.partitions()).filter(|number| only.is_none_or(|only| only == *number));
    for partition in partitions.map(Partition) {
        let bounds = log_reader.bounds(partition).await?;
        let from = from.map_or(bounds.start, Offset);
        if from < bounds.start || from > bounds.end {
            let (start, end) = (bounds.start, bounds.end);
            return Err(format!(
                "--from {from} must be between {start} and {end}, the offsets of partition {partition}"
            )
            .into());
        }
        ledger.rewind(partition, from).await?;
        println!("partition {partition}: consumers record the log from offset {from} when they run again");
    }
    Ok(ExitCode::SUCCESS)
}
