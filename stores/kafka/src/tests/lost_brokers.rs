//! Clients that have lost their brokers, with a real Kafka: the clients are replaced, and writing and reading continue.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use metrics::Gauge;
use rdkafka::{ClientContext, Statistics, producer::Producer, statistics::Broker};
use tokio::time::{sleep, timeout};
use votes::{Assignment, LogReader, LogWriter, Offset, Partition, conformance::logged};

use super::topic::Topic;
use crate::{client::ClientStatus, group::Membership, log_reader::KafkaLogReader, log_writer::KafkaLogWriter};

const PARTITIONS: u16 = 2;

/// The longest time that one step may take. It is ten times the usual time, for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Creates a topic for one test, and returns its URL.
async fn url() -> String {
    Topic::create(PARTITIONS).await.url
}

#[test]
fn a_client_without_a_broker_of_the_cluster_has_lost_its_brokers() {
    let status = ClientStatus::default();
    let broker = |source: &str| Broker { source: source.to_owned(), ..Broker::default() };
    let mut statistics = Statistics::default();
    for (source, is_lost) in [("internal", true), ("logical", true), ("learned", false)] {
        statistics.brokers.insert(source.to_owned(), broker(source));
        status.stats(statistics.clone());
        assert_eq!(status.has_lost_brokers(), is_lost, "{source}");
    }
}

async fn publish(log_writer: &KafkaLogWriter, number: u64) {
    let partition = Partition(u16::try_from(number).unwrap() % PARTITIONS);
    let receipt = log_writer.publish(partition, logged(number, partition, number).vote).unwrap();
    timeout(TEST_TIMEOUT, receipt).await.expect("an outcome").expect("a receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_lost_its_brokers_is_replaced() {
    let log_writer = KafkaLogWriter::connect(&url().await, 100, Gauge::noop()).await.unwrap();
    publish(&log_writer, 1).await;
    let current = || log_writer.producer.current().expect("a client");
    let before = current();
    while Arc::ptr_eq(&before, &current()) {
        // The statistics reset this flag twice a second, so set it again until the producer is replaced.
        before.context().status.has_lost_brokers.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
    }
    publish(&log_writer, 2).await;
}

fn all_partitions() -> BTreeSet<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

/// Waits until all partitions were assigned if `is_assigned`, or revoked otherwise.
async fn wait_for_all(log_reader: &KafkaLogReader, is_assigned: bool) {
    let mut changed = BTreeSet::new();
    while changed != all_partitions() {
        match timeout(TEST_TIMEOUT, log_reader.assignment()).await.expect("a change").unwrap() {
            Assignment::Assigned(partitions) if is_assigned => changed.extend(partitions),
            Assignment::Revoked(partitions) if !is_assigned => changed.extend(partitions),
            change => panic!("{change:?}"),
        }
    }
}

/// Reads one batch of each partition from its start. Returns the number of records.
async fn count_records(log_reader: &KafkaLogReader) -> usize {
    let mut records = 0;
    for partition in all_partitions() {
        log_reader.seek(partition, Offset(0)).await.unwrap();
        let batch = timeout(TEST_TIMEOUT, log_reader.next_batch(partition, 10)).await.expect("a batch").unwrap();
        records += batch.records.len();
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_lost_its_brokers_releases_its_partitions_and_rejoins_the_group() {
    let url = url().await;
    let log_writer = KafkaLogWriter::connect(&url, 100, Gauge::noop()).await.unwrap();
    publish(&log_writer, 0).await;
    publish(&log_writer, 1).await;
    let log_reader = Arc::new(KafkaLogReader::connect(&url, Membership::Group).await.unwrap());
    wait_for_all(&log_reader, true).await;
    assert_eq!(count_records(&log_reader).await, 2);

    // A task that waits for a record when the brokers are lost gets an error.
    let waiting = tokio::spawn({
        let log_reader = Arc::clone(&log_reader);
        async move { log_reader.next_batch(Partition(0), 10).await }
    });
    log_reader.clients().await.unwrap().fetcher.brokers_lost.cancel();
    let outcome = timeout(TEST_TIMEOUT, waiting).await.expect("an outcome").unwrap();
    assert!(outcome.is_err(), "{outcome:?}");

    wait_for_all(&log_reader, false).await;
    wait_for_all(&log_reader, true).await;
    assert_eq!(count_records(&log_reader).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lost_its_brokers_continues_to_read() {
    let url = url().await;
    let log_writer = KafkaLogWriter::connect(&url, 100, Gauge::noop()).await.unwrap();
    publish(&log_writer, 0).await;
    publish(&log_writer, 1).await;
    let log_reader = KafkaLogReader::connect(&url, Membership::Standalone).await.unwrap();
    assert_eq!(count_records(&log_reader).await, 2);
    log_reader.clients().await.unwrap().fetcher.brokers_lost.cancel();
    assert_eq!(count_records(&log_reader).await, 2);
    assert_eq!(log_reader.bounds(Partition(0)).await.unwrap().end, Offset(1));
}
