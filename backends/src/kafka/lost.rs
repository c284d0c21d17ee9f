//! Clients that have lost their brokers, on a real Kafka: others take their place, and votes and records go on.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rdkafka::{ClientContext, Statistics, producer::Producer, statistics::Broker};
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use votes::{Assignment, Offset, Partition, Store, VoteFeed, VoteQueue, conformance::logged};

use super::{KafkaFeed, KafkaQueue, Voice};
use crate::open::Membership;

const PARTITIONS: u16 = 2;

/// How long anything may take, with an order of magnitude for a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A log of this test's own.
async fn url() -> String {
    let url = std::env::var("OVATION_QUEUE").expect("no Kafka: run `dev/stack up && export $(dev/stack env)`");
    let (brokers, _) = url.rsplit_once('/').expect("a topic");
    let url = format!("{brokers}/lost-{}?partitions={PARTITIONS}", Uuid::now_v7());
    // A topic that is new is not there for everyone at once.
    let made = async {
        while !matches!(KafkaFeed::connect(&url, Membership::Alone).await, Ok(feed) if feed.check().await.is_ok()) {
            let _ = KafkaQueue::connect(&url, 1).await;
        }
    };
    timeout(PATIENCE, made).await.expect("a log");
    url
}

#[test]
fn a_client_without_a_broker_of_the_cluster_has_lost_them() {
    let voice = Voice::default();
    let broker = |source: &str| Broker { source: source.to_owned(), ..Broker::default() };
    let mut statistics = Statistics::default();
    for (source, is_lost) in [("internal", true), ("logical", true), ("learned", false)] {
        statistics.brokers.insert(source.to_owned(), broker(source));
        voice.stats(statistics.clone());
        assert_eq!(voice.has_lost_brokers(), is_lost, "{source}");
    }
}

async fn publish(queue: &KafkaQueue, number: u64) {
    let partition = Partition(u16::try_from(number).unwrap() % PARTITIONS);
    let receipt = queue.publish(partition, logged(number, partition, number).vote).unwrap();
    timeout(PATIENCE, receipt).await.expect("an answer").expect("a receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_lost_its_brokers_is_replaced() {
    let queue = KafkaQueue::connect(&url().await, 100).await.unwrap();
    publish(&queue, 1).await;
    let before = queue.producer.handle();
    while Arc::ptr_eq(&before, &queue.producer.handle()) {
        // Its statistics say otherwise twice a second.
        before.context().voice.has_lost_brokers.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
    }
    publish(&queue, 2).await;
}

/// All partitions.
fn all() -> BTreeSet<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

/// Follows the group until all partitions were assigned, or revoked.
async fn follow(feed: &KafkaFeed, is_assigned: bool) {
    let mut changed = BTreeSet::new();
    while changed != all() {
        match timeout(PATIENCE, feed.assignment()).await.expect("a change").unwrap() {
            Assignment::Assigned(partitions) if is_assigned => changed.extend(partitions),
            Assignment::Revoked(partitions) if !is_assigned => changed.extend(partitions),
            change => panic!("{change:?}"),
        }
    }
}

/// Reads each partition from its start.
async fn read(feed: &KafkaFeed) -> usize {
    let mut records = 0;
    for partition in all() {
        feed.seek(partition, Offset(0)).await.unwrap();
        let batch = timeout(PATIENCE, feed.next_batch(partition, 10)).await.expect("a batch").unwrap();
        records += batch.records.len();
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_lost_its_brokers_gives_its_partitions_back_and_comes_again() {
    let url = url().await;
    let queue = KafkaQueue::connect(&url, 100).await.unwrap();
    publish(&queue, 0).await;
    publish(&queue, 1).await;
    let feed = Arc::new(KafkaFeed::connect(&url, Membership::Group).await.unwrap());
    follow(&feed, true).await;
    assert_eq!(read(&feed).await, 2);

    // Somebody waits for a record meanwhile, and hears that none will come.
    let waiting = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { feed.next_batch(Partition(0), 10).await }
    });
    feed.clients().unwrap().reader.lost.cancel();
    let outcome = timeout(PATIENCE, waiting).await.expect("an answer").unwrap();
    assert!(outcome.is_err(), "{outcome:?}");

    follow(&feed, false).await;
    follow(&feed, true).await;
    assert_eq!(read(&feed).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_lost_its_brokers_reads_on() {
    let url = url().await;
    let queue = KafkaQueue::connect(&url, 100).await.unwrap();
    publish(&queue, 0).await;
    publish(&queue, 1).await;
    let feed = KafkaFeed::connect(&url, Membership::Alone).await.unwrap();
    assert_eq!(read(&feed).await, 2);
    feed.clients().unwrap().reader.lost.cancel();
    assert_eq!(read(&feed).await, 2);
    assert_eq!(feed.bounds(Partition(0)).await.unwrap().end, Offset(1));
}
