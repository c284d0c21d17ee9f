//! Reads the stores, with the drivers alone.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use futures::TryStreamExt;
use mongodb::bson::{self, Bson, doc};
use prost::Message as _;
use proto::v1::VoteRecord;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    metadata::{MetadataPartition, MetadataTopic},
};
use redis::Commands;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{
    checker::{Document, Record, Snapshot, Vote},
    told::hex,
};
use crate::stack::Urls;

/// What all names of the tallies begin with.
pub const PREFIX: &str = "{ovation}:";

/// The longest that a store may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads everything. `runtime` drives the book's driver.
pub fn take(urls: &Urls, runtime: &Handle) -> Snapshot {
    let log = Log::open(urls);
    let (ends, book) = (log.ends(), Book::open(urls, runtime));
    Snapshot {
        log: log.read("votes", &ends),
        dead: log.read_count("votes.dead"),
        ends,
        book: book.documents(),
        checkpoints: book.checkpoints(),
        hashes: hashes(urls),
        taken_at: now(),
    }
}

/// Unix time in milliseconds.
pub fn now() -> i64 {
    i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// A reader of the log.
pub struct Log(BaseConsumer);

impl Log {
    pub fn open(urls: &Urls) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", urls.brokers())
            .set("group.id", "checker")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .set("reconnect.backoff.max.ms", "500");
        Self(config.create().unwrap())
    }

    /// The log's end by partition. Fails while the log can't be asked.
    pub fn try_ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>, String> {
        let metadata = self.0.fetch_metadata(Some(topic), PATIENCE).map_err(|error| error.to_string())?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
        partitions
            .map(|partition| match self.0.fetch_watermarks(topic, partition, PATIENCE) {
                Ok((0, end)) => Ok((partition, end)),
                Ok((start, _)) => Err(format!("partition {partition} of {topic} begins at {start}")),
                Err(error) => Err(error.to_string()),
            })
            .collect()
    }

    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.try_ends("votes").unwrap()
    }

    fn read_count(&self, topic: &str) -> usize {
        let ends = self.try_ends(topic).unwrap();
        usize::try_from(ends.values().sum::<i64>()).unwrap()
    }

    /// Every record below the ends.
    fn read(&self, topic: &str, ends: &BTreeMap<i32, i64>) -> Vec<Record> {
        let mut left: BTreeMap<i32, i64> = ends.clone();
        left.retain(|_, end| *end > 0);
        let mut from = TopicPartitionList::new();
        for &partition in left.keys() {
            from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        self.0.assign(&from).unwrap();
        let mut records = Vec::new();
        while !left.is_empty() {
            let message = self.0.poll(PATIENCE).expect("the log has records up to its end").unwrap();
            let (partition, offset) = (message.partition(), message.offset());
            records.push(Record {
                partition,
                offset,
                time: message.timestamp().to_millis().unwrap(),
                key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                vote: read_vote(message.payload().unwrap()),
            });
            if left.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                left.remove(&partition);
            }
        }
        records
    }
}

fn read_vote(value: &[u8]) -> Vote {
    let record = VoteRecord::decode(value).unwrap();
    Vote {
        id: Uuid::from_slice(&record.vote_id).unwrap(),
        contest: record.contest,
        name: record.name,
        album: record.album,
        year: record.year,
        voter: record.voter.as_deref().map(hex),
        door: record.door,
    }
}

/// The book's database.
pub struct Book {
    database: mongodb::Database,
    runtime: Handle,
}

impl Book {
    pub fn open(urls: &Urls, runtime: &Handle) -> Self {
        let client = runtime.block_on(mongodb::Client::with_uri_str(&urls.book)).unwrap();
        Self { database: client.default_database().unwrap(), runtime: runtime.clone() }
    }

    fn documents(&self) -> Vec<Document> {
        self.all("votes").iter().map(read_document).collect()
    }

    fn checkpoints(&self) -> BTreeMap<i32, i64> {
        let read = |checkpoint: &bson::Document| {
            (checkpoint.get_str("_id").unwrap().parse().unwrap(), integer(checkpoint, "offset"))
        };
        // The health check writes here, too, to see that the book can be written.
        let is_checkpoint = |document: &&bson::Document| document.get_str("_id").ok() != Some("check");
        self.all("checkpoints").iter().filter(is_checkpoint).map(read).collect()
    }

    fn all(&self, collection: &str) -> Vec<bson::Document> {
        let collection = self.database.collection::<bson::Document>(collection);
        self.runtime.block_on(async { collection.find(doc! {}).await.unwrap().try_collect().await.unwrap() })
    }

    /// Takes a ballot's document out.
    pub fn remove(&self, ballot: &str) -> bson::Document {
        let votes = self.database.collection::<bson::Document>("votes");
        let filter = doc! { "_id": ballot };
        self.runtime.block_on(async {
            let document = votes.find_one(filter.clone()).await.unwrap().unwrap();
            assert_eq!(votes.delete_one(filter).await.unwrap().deleted_count, 1);
            document
        })
    }

    pub fn put_back(&self, document: bson::Document) {
        let votes = self.database.collection::<bson::Document>("votes");
        self.runtime.block_on(async { votes.insert_one(document).await.unwrap() });
    }
}

fn integer(document: &bson::Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => (*number).into(),
        Some(Bson::Int64(number)) => *number,
        other => panic!("{field} is {other:?} in {document}"),
    }
}

fn read_document(document: &bson::Document) -> Document {
    let text = |field| document.get_str(field).unwrap().to_owned();
    let optional = |field| document.get_str(field).ok().map(str::to_owned);
    let year = document.contains_key("year").then(|| integer(document, "year"));
    Document {
        id: text("_id"),
        partition: i32::try_from(integer(document, "partition")).unwrap(),
        offset: integer(document, "offset"),
        accepted_at: document.get_datetime("accepted_at").unwrap().timestamp_millis(),
        vote: Vote {
            id: Uuid::parse_str(document.get_str("vote_id").unwrap()).unwrap(),
            contest: text("contest"),
            name: text("name"),
            album: optional("album"),
            year: year.map(|year| u32::try_from(year).unwrap()),
            voter: optional("voter"),
            door: text("door"),
        },
    }
}

/// A connection to the tallies that does not wait for ever.
pub fn tallies(urls: &Urls) -> redis::RedisResult<redis::Connection> {
    let connection = redis::Client::open(urls.tally.as_str())?.get_connection_with_timeout(Duration::from_secs(1))?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// The tallies' positions.
pub fn positions(urls: &Urls) -> redis::RedisResult<BTreeMap<i32, i64>> {
    let mut connection = tallies(urls)?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    connection.hgetall(format!("{PREFIX}position"))
}

fn hashes(urls: &Urls) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut connection = tallies(urls).unwrap();
    let names: Vec<String> = connection.keys(format!("{PREFIX}*")).unwrap();
    let mut hashes = BTreeMap::new();
    for name in names {
        let kind: String = redis::cmd("TYPE").arg(&name).query(&mut connection).unwrap();
        if kind == "hash" {
            hashes.insert(name[PREFIX.len()..].to_owned(), connection.hgetall(&name).unwrap());
        }
    }
    hashes
}
