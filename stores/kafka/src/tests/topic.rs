//! Topics that only one test uses, on a real Kafka.

use std::time::Duration;

use metrics::Gauge;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord},
};
use tokio::time::timeout;
use uuid::Uuid;
use votes::{Batch, LogReader, LogWriter, Offset, Partition, Store, conformance::logged};

use crate::{group::Membership, log_reader::KafkaLogReader, log_writer::KafkaLogWriter};

/// The longest time that one step may take. It is ten times the usual time, for a busy machine.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The partition that most tests use.
pub(super) const P: Partition = Partition(0);

pub(super) struct Topic {
    pub(super) brokers: String,
    pub(super) name: String,
    pub(super) url: String,
}

impl Topic {
    /// Creates the topic, and its dead-letter topic.
    pub(super) async fn create(partitions: u16) -> Self {
        let url = std::env::var("OVATION_VOTE_LOG").expect("no Kafka: run `dev/stack up && export $(dev/stack env)`");
        let (brokers, _) = url.rsplit_once('/').expect("a topic");
        let name = format!("test-{}", Uuid::now_v7());
        let url = format!("{brokers}/{name}?partitions={partitions}");
        // Some time passes until a new topic exists on all brokers.
        let created = async {
            while !matches!(KafkaLogReader::connect(&url, Membership::Standalone).await, Ok(log_reader) if log_reader.check().await.is_ok())
            {
                let _ = KafkaLogWriter::connect(&url, 1, Gauge::noop()).await;
            }
        };
        timeout(TEST_TIMEOUT, created).await.expect("the topic exists");
        Self { brokers: brokers.trim_start_matches("kafka://").to_owned(), name, url }
    }

    pub(super) async fn writer(&self) -> KafkaLogWriter {
        KafkaLogWriter::connect(&self.url, 1_000, Gauge::noop()).await.unwrap()
    }

    pub(super) async fn reader(&self) -> KafkaLogReader {
        KafkaLogReader::connect(&self.url, Membership::Standalone).await.unwrap()
    }

    /// Returns the configuration of a client of another program.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    pub(super) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Replaces all settings of a topic that differ from the defaults of the brokers.
    pub(super) async fn set(&self, topic: &str, settings: &[(&str, &str)]) {
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in settings {
            change = change.set(name, value);
        }
        let options = AdminOptions::new().request_timeout(Some(TEST_TIMEOUT));
        self.admin().alter_configs([&change], &options).await.unwrap().remove(0).unwrap();
    }

    /// Writes a record as another program does. Returns its offset.
    pub(super) async fn produce(&self, topic: &str, key: &[u8], value: &[u8], headers: OwnedHeaders) -> Offset {
        let producer: FutureProducer = self.client().set("message.max.bytes", "2000000").create().unwrap();
        let record = FutureRecord::to(topic).partition(i32::from(P.0)).key(key).payload(value).headers(headers);
        let delivery = producer.send(record, TEST_TIMEOUT).await.map_err(|(error, _)| error).unwrap();
        Offset(u64::try_from(delivery.offset).unwrap())
    }
}

/// Publishes a vote to [`P`]. Returns its offset.
pub(super) async fn publish(log_writer: &KafkaLogWriter, number: u64) -> Offset {
    let receipt = log_writer.publish(P, logged(number, P, number).vote).unwrap();
    timeout(TEST_TIMEOUT, receipt).await.expect("an outcome").expect("a receipt").position.offset
}

/// Reads the next batch of [`P`].
pub(super) async fn next_batch(log_reader: &KafkaLogReader) -> Batch {
    timeout(TEST_TIMEOUT, log_reader.next_batch(P, 1_000)).await.expect("a batch").unwrap()
}

/// Reads batches of [`P`] until they end at `end`. Returns the offsets of the records.
pub(super) async fn read_to(log_reader: &KafkaLogReader, end: Offset) -> Vec<Offset> {
    let mut offsets = Vec::new();
    loop {
        let batch = next_batch(log_reader).await;
        assert!(batch.to <= end, "{batch:?} passes the end {end}");
        offsets.extend(batch.records.iter().map(|record| record.offset));
        if batch.to == end {
            return offsets;
        }
    }
}
