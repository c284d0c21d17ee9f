//! The floor under the consumer: the votes of a topic, as the documents that the book would have, inserted by the bare driver
//! into a database of their own. Prints one JSON object.

use std::{process::ExitCode, sync::Arc, time::Instant};

use backends::{Access, Stores};
use clap::Parser;
use futures::future::try_join_all;
use mongodb::{
    Client, Collection,
    bson::{DateTime, RawDocumentBuf, doc},
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};
use serde_json::json;
use service::{Config, health::Weight, program::Failure};
use votes::{LoggedVote, Offset, Partition, Place};

/// Documents of a command, as many as a batch of the consumer has at most.
const BATCH: usize = 1_000;

/// Insert the votes of a topic with the bare driver
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  insert-many --queue kafka://127.0.0.1:9092/votes \
    --book mongodb://127.0.0.1:27017/floor --votes 100000"
)]
struct Flags {
    /// The vote log
    #[arg(long)]
    queue: String,
    /// Where to insert: a database that is made, and dropped afterwards
    #[arg(long)]
    book: String,
    /// How many votes, at most
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
    let lanes = read(&flags).await?;
    let total: usize = lanes.iter().map(Vec::len).sum();
    let client = Client::with_uri_str(&flags.book).await?;
    let database = client.default_database().ok_or("the book's URL names no database")?;
    let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    let options = CollectionOptions::builder().write_concern(durable).build();
    let votes: Collection<RawDocumentBuf> = database.collection_with_options("votes", options);
    // The indexes that the book has.
    for keys in [
        doc! { "partition": 1, "offset": 1 },
        doc! { "contest": 1, "accepted_at": -1, "partition": 1, "offset": -1 },
        doc! { "contest": 1, "name": 1, "accepted_at": -1, "partition": 1, "offset": -1 },
    ] {
        votes.create_index(mongodb::IndexModel::builder().keys(keys).build()).await?;
    }

    let begun = Instant::now();
    try_join_all(lanes.into_iter().map(|lane| {
        let votes = votes.clone();
        tokio::spawn(async move {
            for batch in lane.chunks(BATCH) {
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

/// The documents of each partition: as many tasks insert as the consumer has.
async fn read(flags: &Flags) -> Result<Vec<Vec<RawDocumentBuf>>, Failure> {
    let urls = json!({ "queue": flags.queue, "tally": "redis://127.0.0.1:1", "book": flags.book });
    let stores = Stores::open_for_command(&Config::load(None, urls, 0)?, Access::Read)?;
    let feed = stores.reader(Weight::Vital).await?;
    let each = flags.votes.div_ceil(usize::from(feed.partitions()));
    try_join_all((0..feed.partitions()).map(Partition).map(|partition| {
        let feed = Arc::clone(&feed);
        async move {
            let bounds = feed.bounds(partition).await?;
            let mut documents = Vec::with_capacity(each);
            feed.seek(partition, bounds.start).await?;
            let mut at = bounds.start;
            while at < bounds.end && documents.len() < each {
                let batch = feed.next_batch(partition, BATCH.min(each - documents.len())).await?;
                at = batch.to;
                for record in batch.records {
                    if let Ok(vote) = record.vote {
                        documents
                            .push(document(&LoggedVote { place: Place { partition, offset: record.offset }, vote })?);
                    }
                }
            }
            Ok::<_, Failure>(documents)
        }
    }))
    .await
}

fn document(LoggedVote { place, vote }: &LoggedVote) -> Result<RawDocumentBuf, Failure> {
    let Offset(offset) = place.offset;
    let mut document = doc! {
        "_id": vote.key.as_str(),
        "vote_id": vote.vote_id.to_string(),
        "contest": vote.contest.as_str(),
        "name": &vote.name,
        "accepted_at": DateTime::from_millis(vote.accepted_at.0),
        "door": vote.door.as_str(),
        "partition": i32::from(place.partition.0),
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
