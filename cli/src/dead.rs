//! `ovation dead`: the records that could not be read as votes.

use std::process::ExitCode;

use backends::{Access, Stores, read_again};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use service::{Config, config::StoreFlags, health::Weight};
use votes::{DeadLetter, Offset, Partition, StoreError, VoteFeed};

use crate::Failure;

/// Show the records that could not be read as votes, or read them again
#[derive(Args)]
#[command(after_help = "Example:\n  ovation dead list --queue kafka://127.0.0.1:9092/votes --json")]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List them, with where they are and what is wrong with them
    List(Flags),
    /// Put those that this version can read on the vote log again. Doing it twice counts nothing twice
    Replay(Flags),
}

#[derive(Args, Serialize)]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    stores: StoreFlags,
    /// Print JSON
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

pub(crate) async fn run(args: DeadArgs) -> Result<ExitCode, Failure> {
    match args.action {
        Action::List(flags) => list(flags).await,
        Action::Replay(flags) => replay(flags).await,
    }
}

async fn list(flags: Flags) -> Result<ExitCode, Failure> {
    let is_json = flags.json;
    let stores = Stores::open_for_command(&Config::load(None, flags, 0)?, Access::Read)?;
    let letters = read(&*stores.reader(Weight::Vital).await?).await?;
    if is_json {
        let letters: Vec<_> = letters.iter().map(shown).collect();
        println!("{}", serde_json::to_string(&letters)?);
        return Ok(ExitCode::SUCCESS);
    }
    for DeadLetter { place, accepted_at, poison } in &letters {
        println!("{place}  {accepted_at}  {} bytes  {}", poison.value.len(), poison.reason);
    }
    println!("{} records are no votes", letters.len());
    Ok(ExitCode::SUCCESS)
}

async fn replay(flags: Flags) -> Result<ExitCode, Failure> {
    let is_json = flags.json;
    // An embedded log is written by one process at a time, so a running system is refused here.
    let stores = Stores::open_for_command(&Config::load(None, flags, 0)?, Access::Write)?;
    let (feed, queue) = (stores.reader(Weight::Vital).await?, stores.queue(Weight::Vital).await?);
    let letters = read(&*feed).await?;
    let (mut replayed, mut unreadable) = (0_u64, 0_u64);
    for letter in &letters {
        match read_again(letter) {
            Ok(vote) => {
                let partition = vote.key.partition(queue.partitions());
                queue.publish(partition, vote)?.await?;
                replayed += 1;
            }
            Err(_) => unreadable += 1,
        }
    }
    if is_json {
        println!("{}", json!({ "replayed": replayed, "unreadable": unreadable }));
    } else {
        println!("{replayed} votes put on the log again, {unreadable} records still can't be read");
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(feed: &dyn VoteFeed) -> Result<Vec<DeadLetter>, StoreError> {
    let mut letters = Vec::new();
    for partition in (0..feed.partitions()).map(Partition) {
        letters.extend(feed.dead(partition, Offset(0), Offset(u64::MAX)).await?);
    }
    Ok(letters)
}

fn shown(DeadLetter { place, accepted_at, poison }: &DeadLetter) -> serde_json::Value {
    json!({
        "partition": place.partition.0,
        "offset": place.offset.0,
        "accepted_at": accepted_at.to_string(),
        "reason": poison.reason,
        "key": String::from_utf8_lossy(&poison.key),
        "value_bytes": poison.value.len(),
    })
}
