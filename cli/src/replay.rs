//! `ovation replay`: the tallies from the book, the book from the log.

use std::process::ExitCode;

use backends::{Access, Stores};
use clap::{Args, Subcommand};
use serde::Serialize;
use service::{Config, config::StoreFlags, health::Weight};
use votes::{Offset, Partition};

use crate::Failure;

/// Make the tallies again from the book, or the book again from the log
#[derive(Args)]
#[command(after_help = "Example:\n  ovation replay tallies --queue kafka://127.0.0.1:9092/votes \
    --tally redis://127.0.0.1:6379 --book mongodb://127.0.0.1:27017/ovation")]
pub(crate) struct ReplayArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Clear the tallies with their positions, in one step. Consumers count them again from the book, while votes go on
    /// coming in
    Tallies(TalliesFlags),
    /// Let the log be recorded in the book again, from its start or from an offset. Only while no consumer runs
    Book(BookFlags),
}

#[derive(Args, Serialize)]
struct TalliesFlags {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
}

#[derive(Args, Serialize)]
struct BookFlags {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip)]
    partition: Option<u16>,
    /// From this offset of it, instead of from the log's start
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    #[serde(skip)]
    from: Option<u64>,
}

pub(crate) async fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    match args.what {
        What::Tallies(flags) => tallies(flags).await,
        What::Book(flags) => book(flags).await,
    }
}

async fn tallies(flags: TalliesFlags) -> Result<ExitCode, Failure> {
    let stores = Stores::open_for_command(&Config::load(None, flags, 0)?, Access::Write)?;
    stores.tallies(Weight::Vital).await?.clear().await?;
    println!("the tallies are cleared; consumers count them again from the book");
    Ok(ExitCode::SUCCESS)
}

async fn book(flags: BookFlags) -> Result<ExitCode, Failure> {
    let (only, from) = (flags.partition, flags.from);
    let config = Config::load(None, flags, 0)?;
    if Stores::are_counting(&config).await? {
        return Err("consumers are running: stop them first, or they would go on from where they are".into());
    }
    let stores = Stores::open_for_command(&config, Access::Write)?;
    let (feed, book) = (stores.reader(Weight::Vital).await?, stores.book(Weight::Vital).await?);
    if let Some(only) = only.filter(|only| *only >= feed.partitions()) {
        return Err(format!("there is no partition {only}; the log has {} of them, from 0", feed.partitions()).into());
    }
    let partitions = (0..feed.partitions()).filter(|number| only.is_none_or(|only| only == *number));
    for partition in partitions.map(Partition) {
        let bounds = feed.bounds(partition).await?;
        let from = from.map_or(bounds.start, Offset);
        if from < bounds.start || from > bounds.end {
            let (start, end) = (bounds.start, bounds.end);
            return Err(format!(
                "partition {partition} has offsets from {start} to {end}, and {from} is not among them"
            )
            .into());
        }
        book.rewind(partition, from).await?;
        println!("partition {partition}: the log is recorded from offset {from} on when a consumer runs");
    }
    Ok(ExitCode::SUCCESS)
}
