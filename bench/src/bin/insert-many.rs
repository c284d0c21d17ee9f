//! The bare driver, to compare the consumer with: reads votes of a topic, and inserts the same documents as the ledger
//! with the driver of `MongoDB` into a separate database. Prints one JSON object.

use std::{process::ExitCode, sync::Arc, time::Instant};

use clap::Parser;
use futures::future::try_join_all;
use mongodb::{
    Client, Collection,
    bson::{DateTime, RawDocumentBuf, doc},
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};
use serde_json::json;
use service::{Config, health::Criticality, program::Failure};
use stores::{Access, Stores};
use votes::{LogPosition, LoggedVote, Offset, Partition};

/// The number of documents in a command: the largest batch of a consumer.
const BATCH: usize = 1_000;

/// Insert the votes of a topic with the bare driver
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  insert-many --vote-log kafka://127.0.0.1:9092/votes \
    --ledger mongodb://127.0.0.1:27017/bare --votes 100000"
)]
struct Flags {
    /// The vote log
    #[arg(long)]
    vote_log: String,
    /// The URL of a database, which is created, and dropped at the end
    #[arg(long)]
    ledger: String,
    /// The maximum number of votes
    #[arg(long)]
    votes: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => service::program::exit_code(Err(error)),
    }
}

async fn run(flags: Flags) -> Result<(), Failure> {
    let partitions = read_documents(&flags).await?;
    let total: usize = partitions.iter().map(Vec::len).sum();
    let client = Client::with_uri_str(&flags.ledger).await?;
    let database = client.default_database().ok_or("the ledger's URL names no database")?;
    let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    let options = CollectionOptions::builder().write_concern(durable).build();
    let votes: Collection<RawDocumentBuf> = database.collection_with_options("votes", options);
    // Create the indexes that the ledger has.
    for keys in [
        doc! { "partition": 1, "offset": 1 },
        doc! { "contest": 1, "accepted_at": -1, "partition": 1, "offset": -1 },
        doc! { "contest": 1, "name": 1, "accepted_at": -1, "partition": 1, "offset": -1 },
    ] {
        votes.create_index(mongodb::IndexModel::builder().keys(keys).build()).await?;
    }

    let begun = Instant::now();
    try_join_all(partitions.into_iter().map(|documents| {
        let votes = votes.clone();
        tokio::spawn(async move {
            for batch in documents.chunks(BATCH) {
                votes.insert_many(batch).ordered(false).await?;
            }
            Ok::<_, mongodb::error::Error>(())
        })
    }))
    .await?
    .into_iter()
    .collect::<Result<Vec<()>, _>>()?;
    let seconds = begun.elapsed().as_secs_f64();
    database.drop().await?;
    println!("{}", json!({ "documents": total, "seconds": seconds, "per_second": total as f64 / seconds }));
    Ok(())
}

/// Returns the documents of each partition. As in the consumer, one task for each partition inserts its documents.
async fn read_documents(flags: &Flags) -> Result<Vec<Vec<RawDocumentBuf>>, Failure> {
    let urls = json!({ "vote_log": flags.vote_log, "tallies": "redis://127.0.0.1:1", "ledger": flags.ledger });
    let stores = Stores::open_for_command(&Config::load(None, urls, 0)?, Access::Read)?;
    let log_reader = stores.standalone_log_reader(Criticality::Required).await?;
    let per_partition = flags.votes.div_ceil(usize::from(log_reader.partitions()));
    try_join_all((0..log_reader.partitions()).map(Partition).map(|partition| {
        let log_reader = Arc::clone(&log_reader);
        async move {
            let bounds = log_reader.bounds(partition).await?;
            let mut documents = Vec::with_capacity(per_partition);
            log_reader.seek(partition, bounds.start).await?;
            let mut at = bounds.start;
            while at < bounds.end && documents.len() < per_partition {
                let batch = log_reader.next_batch(partition, BATCH.min(per_partition - documents.len())).await?;
                at = batch.to;
                for record in batch.records {
                    if let Ok(vote) = record.vote {
                        documents.push(document(&LoggedVote {
                            position: LogPosition { partition, offset: record.offset },
                            vote,
                        })?);
                    }
                }
            }
            Ok::<_, Failure>(documents)
        }
    }))
    .await
}

fn document(LoggedVote { position, vote }: &LoggedVote) -> Result<RawDocumentBuf, Failure> {
    let Offset(offset) = position.offset;
    let mut document = doc! {
        "_id": vote.key.as_str(),
        "vote_id": vote.vote_id.to_string(),
        "contest": vote.contest.as_str(),
        "name": &vote.name,
        "accepted_at": DateTime::from_millis(vote.accepted_at.0),
        "producer": vote.producer.as_str(),
        "partition": i32::from(position.partition.0),
        "offset": i64::try_from(offset)?,
    };
    if let Some(album) = &vote.album {
        document.insert("album", album);
    }
    if let Some(year) = vote.year {
        document.insert("year", i32::from(year));
    }
    if let Some(rank) = vote.rank {
        document.insert("rank", rank);
    }
    if let Some(voter) = vote.voter {
        document.insert("voter", voter.to_string());
    }
    Ok(RawDocumentBuf::try_from(&document)?)
}
