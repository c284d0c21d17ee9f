//! The vote log on a real Kafka: the conformance suites of its ports, and tests of the consumer group and the topics.
//! `dev/stack up` starts a Kafka.
#![allow(clippy::unwrap_used)]

mod kafka_cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kafka_cluster::Topic;
use query::{ChunkQueue, Imports, conformance::imports::import};
use rdkafka::admin::{NewTopic, TopicReplication};
use service::{Health, health::Criticality};
use stores::Stores;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use votes::{Assignment, LogReader, LogWriter, Offset, Partition, conformance::vote};

/// Returns the stores with a new topic.
fn stores() -> Stores {
    Topic::from_environment().stores()
}

/// The only consumer of a group.
mod consumer {
    use super::*;

    async fn open_log() -> (Arc<dyn LogWriter>, Arc<dyn LogReader>, ()) {
        let stores = stores();
        (
            stores.log_writer(Criticality::Required).await.unwrap(),
            stores.log_reader(Criticality::Required).await.unwrap(),
            (),
        )
    }

    votes::log_conformance!(open_log);
}

/// A log reader that is no member of the group.
mod standalone {
    use super::*;

    async fn open_log() -> (Arc<dyn LogWriter>, Arc<dyn LogReader>, ()) {
        let stores = stores();
        (
            stores.log_writer(Criticality::Required).await.unwrap(),
            stores.standalone_log_reader(Criticality::Required).await.unwrap(),
            (),
        )
    }

    votes::log_conformance!(open_log);
}

/// The chunks of imports.
mod chunks {
    use super::*;

    async fn open_chunks() -> ([Arc<dyn ChunkQueue>; 2], Option<Arc<dyn Imports>>, ()) {
        let stores = stores();
        (
            [stores.chunks(Criticality::Required).await.unwrap(), stores.chunks(Criticality::Required).await.unwrap()],
            None,
            (),
        )
    }

    query::chunks_conformance!(open_chunks);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_chunk_that_its_worker_did_not_acknowledge_is_delivered_to_another_worker() {
        let stores = stores();
        let (ended, other) =
            (stores.chunks(Criticality::Required).await.unwrap(), stores.chunks(Criticality::Required).await.unwrap());
        let (_, chunks) = import(24);
        ended.publish(&chunks).await.unwrap();
        let in_flight = ended.next().await.unwrap();
        drop(ended);
        let mut delivered = BTreeSet::new();
        while delivered.len() < chunks.len() {
            let chunk = timeout(TEST_TIMEOUT, other.next()).await.unwrap().unwrap();
            other.acknowledge().await.unwrap();
            delivered.insert(chunk.number);
        }
        assert!(delivered.contains(&in_flight.number));
    }
}

/// The longest time that one step may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The consumers that have each partition, by the assignments that these consumers received.
#[derive(Clone, Default)]
struct Owners(Arc<Mutex<BTreeMap<Partition, BTreeSet<usize>>>>);

impl Owners {
    /// Starts a task that records the assignments of a consumer. The task holds a reference to the log reader until it
    /// is aborted.
    fn record_assignments(&self, consumer: usize, log_reader: Arc<dyn LogReader>) -> JoinHandle<()> {
        let owners = self.clone();
        tokio::spawn(async move {
            loop {
                let change = log_reader.assignment().await.unwrap();
                let mut owners = owners.0.lock().unwrap();
                match change {
                    Assignment::Assigned(partitions) => {
                        for partition in partitions {
                            assert!(owners.entry(partition).or_default().insert(consumer), "assigned twice");
                        }
                    }
                    Assignment::Revoked(partitions) => {
                        for partition in partitions {
                            assert!(owners.entry(partition).or_default().remove(&consumer), "was not assigned");
                        }
                    }
                }
            }
        })
    }

    /// Removes a consumer that has left.
    fn remove(&self, consumer: usize) {
        self.0.lock().unwrap().values_mut().for_each(|owners| _ = owners.remove(&consumer));
    }

    /// Waits until each partition has exactly one owner, and each of `consumers` has an equal share. Returns how long
    /// this took.
    async fn wait_until_evenly_shared(&self, consumers: &[usize]) -> Duration {
        let begun = Instant::now();
        let is_evenly_shared = || {
            let owners = self.0.lock().unwrap();
            let mut shares: BTreeMap<usize, usize> = BTreeMap::new();
            for owners in owners.values().filter(|owners| owners.len() == 1) {
                *shares.entry(*owners.first().unwrap()).or_default() += 1;
            }
            let even = 12 / consumers.len();
            shares.keys().eq(consumers)
                && shares.values().sum::<usize>() == 12
                && shares.values().all(|share| (even..=even + 1).contains(share))
        };
        while !is_evenly_shared() {
            assert!(begun.elapsed() < TEST_TIMEOUT, "the partitions are not shared: {:?}", self.0.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_share_the_partitions_and_take_over_those_of_one_that_leaves() {
    let stores = stores();
    let owners = Owners::default();
    let mut consumers = BTreeMap::new();
    let mut present = Vec::new();
    for consumer in 0..5 {
        let log_reader = stores.log_reader(Criticality::Required).await.unwrap();
        consumers.insert(consumer, (owners.record_assignments(consumer, Arc::clone(&log_reader)), log_reader));
        present.push(consumer);
        // Do not wait after consumer 1: consumers 1 and 2 join at the same time.
        if consumer != 1 {
            println!("{consumer} joined; partitions shared in {:?}", owners.wait_until_evenly_shared(&present).await);
        }
    }
    for consumer in [2, 0, 4, 1] {
        let (task, log_reader) = consumers.remove(&consumer).unwrap();
        task.abort();
        let _ = task.await;
        owners.remove(consumer);
        present.retain(|other| *other != consumer);
        let begun = Instant::now();
        drop(log_reader);
        println!(
            "{consumer} left in {:?}; partitions shared in {:?}",
            begun.elapsed(),
            owners.wait_until_evenly_shared(&present).await
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_the_records_of_its_last_seek() {
    let stores = stores();
    let (log_writer, log_reader) = (
        stores.log_writer(Criticality::Required).await.unwrap(),
        stores.standalone_log_reader(Criticality::Required).await.unwrap(),
    );
    let partition = Partition(7);
    let pending: Vec<_> = (0..3_000).map(|n| log_writer.publish(partition, vote(n)).unwrap()).collect();
    for receipt in pending {
        receipt.await.unwrap();
    }
    // The records of an earlier seek may still arrive after a later seek. Every third seek is followed by another seek.
    for step in 0..100_u64 {
        let at = step * 1_237 % 3_000;
        log_reader.seek(partition, Offset(at)).await.unwrap();
        if step % 3 == 0 {
            continue;
        }
        let batch = log_reader.next_batch(partition, 10).await.unwrap();
        assert_eq!((batch.from, batch.records[0].offset), (Offset(at), Offset(at)));
        assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, vote(at).vote_id);
    }
}

/// Asserts that a log writer and a log reader refuse a topic with these settings, with `words` in the error.
async fn assert_refused(settings: &[(&str, &str)], partitions: i32, options: &str, words: &str) {
    let topic = Topic { options: options.to_owned(), ..Topic::from_environment() };
    let dead_letters = format!("{}.dead", topic.name);
    let topics = [&topic.name, &dead_letters].map(|name| {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        topic
    });
    topic.create(&topics).await;
    let Err(refusal) = timeout(TEST_TIMEOUT, topic.stores().log_writer(Criticality::Required)).await.unwrap() else {
        panic!("the log writer accepted {settings:?} {options}")
    };
    assert!(refusal.to_string().contains(words), "{settings:?} {options}: {refusal}");
    let Err(refusal) =
        timeout(TEST_TIMEOUT, topic.stores().standalone_log_reader(Criticality::Required)).await.unwrap()
    else {
        panic!("the log reader accepted {settings:?} {options}")
    };
    assert!(refusal.to_string().contains(words), "{settings:?} {options}: {refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_unsafe_settings_is_refused_with_the_reason_or_the_repair() {
    assert_refused(&[], 3, "", "it has 3 partitions and 12 are configured").await;
    assert_refused(
        &[],
        3,
        "",
        "from the beginning, give ?partitions=3. If partitions were added later, use another topic",
    )
    .await;
    assert_refused(&[("retention.ms", "1000")], 12, "", "--add-config retention.ms=-1, or give ?retention=DAYS").await;
    assert_refused(&[], 12, "?retention=7", "retention.ms is -1 and 604800000 is configured").await;
    assert_refused(&[("retention.bytes", "1000")], 12, "", "votes could be deleted before they are counted").await;
    assert_refused(&[("cleanup.policy", "compact")], 12, "", "--add-config cleanup.policy=delete").await;
    assert_refused(&[("message.timestamp.type", "LogAppendTime")], 12, "", "a record's time is the time of acceptance")
        .await;
    assert_refused(&[("unclean.leader.election.enable", "true")], 12, "", "could become leader").await;
    assert_refused(&[("min.insync.replicas", "2")], 12, "", "there are 1 replicas: Kafka would refuse every vote")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_waits_while_there_are_fewer_brokers_than_replicas() {
    let topic = Topic { options: "?replication=9".to_owned(), ..Topic::from_environment() };
    let health = Health::default();
    let stores = topic.stores_with_health(&health);
    let opening = tokio::spawn(async move { stores.log_writer(Criticality::Required).await.map(drop) });
    let reported = async {
        loop {
            let report = health.report().await;
            let problem = report.checks.first().and_then(|check| check.error.clone()).unwrap_or_default();
            if problem.contains("9 replicas are configured and there are") {
                return report.ready;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(!timeout(TEST_TIMEOUT, reported).await.unwrap());
    assert!(!opening.is_finished());
    opening.abort();
}
