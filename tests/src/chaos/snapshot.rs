//! This module reads the stores with the drivers only, without the adapters of the system.

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
use tokio::{runtime::Handle, time::timeout};
use uuid::Uuid;

use super::{
    checker::{Document, Record, Snapshot, Vote},
    history::hex,
};
use crate::stack::Urls;

/// The prefix of all Redis keys of the tallies.
pub const PREFIX: &str = "{ovation}:";

/// The longest time of a call to a store. A store that does not respond must fail the test, and not delay its end.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads all stores. `runtime` runs the driver of the ledger.
pub fn take(urls: &Urls, runtime: &Handle) -> Snapshot {
    let log = Log::open(urls);
    let (ends, ledger) = (log.ends(), Ledger::open(urls, runtime));
    Snapshot {
        log: log.read("votes", &ends),
        dead_letters: log.count("votes.dead"),
        ends,
        ledger: ledger.documents(),
        checkpoints: ledger.checkpoints(),
        hashes: read_hashes(urls),
        taken_at: unix_millis(),
    }
}

/// Returns the Unix time in milliseconds.
fn unix_millis() -> i64 {
    i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// A Kafka consumer that reads the log.
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

    /// Returns the ends of a topic by partition.
    ///
    /// # Errors
    /// If the topic can't be read, or if a partition no longer has its first record.
    pub fn try_ends(&self, topic: &str) -> Result<BTreeMap<i32, i64>, String> {
        let metadata = self.0.fetch_metadata(Some(topic), CALL_TIMEOUT).map_err(|error| error.to_string())?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
        partitions
            .map(|partition| match self.0.fetch_watermarks(topic, partition, CALL_TIMEOUT) {
                Ok((0, end)) => Ok((partition, end)),
                Ok((start, _)) => Err(format!("partition {partition} of {topic} starts at {start}")),
                Err(error) => Err(error.to_string()),
            })
            .collect()
    }

    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.try_ends("votes").unwrap()
    }

    /// Returns the number of records of a topic.
    fn count(&self, topic: &str) -> usize {
        let ends = self.try_ends(topic).unwrap();
        usize::try_from(ends.values().sum::<i64>()).unwrap()
    }

    /// Reads every record below the ends.
    fn read(&self, topic: &str, ends: &BTreeMap<i32, i64>) -> Vec<Record> {
        let mut unread: BTreeMap<i32, i64> = ends.clone();
        unread.retain(|_, end| *end > 0);
        let mut assignment = TopicPartitionList::new();
        for &partition in unread.keys() {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        self.0.assign(&assignment).unwrap();
        let mut records = Vec::new();
        while !unread.is_empty() {
            let message = self.0.poll(CALL_TIMEOUT).expect("the log has records up to its end").unwrap();
            let (partition, offset) = (message.partition(), message.offset());
            records.push(Record {
                partition,
                offset,
                time: message.timestamp().to_millis().unwrap(),
                key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                vote: decode_vote(message.payload().unwrap()),
            });
            if unread.get(&partition).is_some_and(|end| offset + 1 >= *end) {
                unread.remove(&partition);
            }
        }
        records
    }
}

fn decode_vote(value: &[u8]) -> Vote {
    let record = VoteRecord::decode(value).unwrap();
    Vote {
        id: Uuid::from_slice(&record.vote_id).unwrap(),
        contest: record.contest,
        name: record.name,
        album: record.album,
        year: record.year,
        voter: record.voter.as_deref().map(hex),
        producer: record.producer,
    }
}

/// The database of the ledger.
pub struct Ledger {
    database: mongodb::Database,
    runtime: Handle,
}

impl Ledger {
    pub fn open(urls: &Urls, runtime: &Handle) -> Self {
        let client = call(runtime, mongodb::Client::with_uri_str(&urls.ledger)).unwrap();
        Self { database: client.default_database().unwrap(), runtime: runtime.clone() }
    }

    fn documents(&self) -> Vec<Document> {
        self.read_all("votes").iter().map(parse_document).collect()
    }

    fn checkpoints(&self) -> BTreeMap<i32, i64> {
        let parse = |checkpoint: &bson::Document| {
            (checkpoint.get_str("_id").unwrap().parse().unwrap(), integer(checkpoint, "offset"))
        };
        // The collection also has a document of the health check, and one with the version of the layout.
        let is_checkpoint = |document: &&bson::Document| !matches!(document.get_str("_id"), Ok("check" | "layout"));
        self.read_all("checkpoints").iter().filter(is_checkpoint).map(parse).collect()
    }

    fn read_all(&self, collection: &str) -> Vec<bson::Document> {
        let collection = self.database.collection::<bson::Document>(collection);
        call(&self.runtime, async { collection.find(doc! {}).await.unwrap().try_collect().await.unwrap() })
    }

    /// Removes the document of a ballot. Returns the removed document.
    pub fn remove(&self, ballot: &str) -> bson::Document {
        let votes = self.database.collection::<bson::Document>("votes");
        let filter = doc! { "_id": ballot };
        call(&self.runtime, async {
            let document = votes.find_one(filter.clone()).await.unwrap().unwrap();
            assert_eq!(votes.delete_one(filter).await.unwrap().deleted_count, 1);
            document
        })
    }

    pub fn insert(&self, document: bson::Document) {
        let votes = self.database.collection::<bson::Document>("votes");
        call(&self.runtime, async { votes.insert_one(document).await.unwrap() });
    }
}

/// Waits for a call of the driver, which has no time limit of its own.
fn call<T>(runtime: &Handle, call: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(CALL_TIMEOUT, call).await.expect("MongoDB responds in time") })
}

fn integer(document: &bson::Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => (*number).into(),
        Some(Bson::Int64(number)) => *number,
        other => panic!("{field} is {other:?} in {document}"),
    }
}

fn parse_document(document: &bson::Document) -> Document {
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
            producer: text("producer"),
        },
    }
}

/// Connects to the tallies, with timeouts.
pub fn connect_to_tallies(urls: &Urls) -> redis::RedisResult<redis::Connection> {
    let connection = redis::Client::open(urls.tallies.as_str())?.get_connection_with_timeout(Duration::from_secs(1))?;
    connection.set_read_timeout(Some(CALL_TIMEOUT))?;
    Ok(connection)
}

/// Reads the positions of the tallies.
pub fn read_positions(urls: &Urls) -> redis::RedisResult<BTreeMap<i32, i64>> {
    let mut connection = connect_to_tallies(urls)?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    connection.hgetall(format!("{PREFIX}position"))
}

fn read_hashes(urls: &Urls) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut connection = connect_to_tallies(urls).unwrap();
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
