//! The vote log on a real Kafka keeps every promise of its ports. `dev/stack up` starts one.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used)]

mod kafka_cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use backends::Stores;
use kafka_cluster::Topic;
use rdkafka::admin::{NewTopic, TopicReplication};
use service::{Health, health::Weight};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use votes::{
    Assignment, ChunkQueue, Imports, Offset, Partition, VoteFeed, VoteQueue,
    conformance::{imports::import, vote},
};

/// The stores with a topic of the test's own.
fn stores() -> Stores {
    Topic::of_the_environment().stores()
}

/// What one consumer of a group sees.
mod consumer {
    use super::*;

    async fn open_log() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, ()) {
        let stores = stores();
        (stores.queue(Weight::Vital).await.unwrap(), stores.feed(Weight::Vital).await.unwrap(), ())
    }

    votes::log_conformance!(open_log);
}

/// What a reader outside the group sees.
mod reader {
    use super::*;

    async fn open_log() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, ()) {
        let stores = stores();
        (stores.queue(Weight::Vital).await.unwrap(), stores.reader(Weight::Vital).await.unwrap(), ())
    }

    votes::log_conformance!(open_log);
}

/// What workers see of imports' chunks.
mod chunks {
    use super::*;

    async fn open_chunks() -> ([Arc<dyn ChunkQueue>; 2], Option<Arc<dyn Imports>>, ()) {
        let stores = stores();
        ([stores.chunks(Weight::Vital).await.unwrap(), stores.chunks(Weight::Vital).await.unwrap()], None, ())
    }

    votes::chunks_conformance!(open_chunks);

    /// A worker that has ended without a word: what it had taken comes to another.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_chunk_of_a_worker_that_is_gone_comes_to_another() {
        let stores = stores();
        let (gone, other) = (stores.chunks(Weight::Vital).await.unwrap(), stores.chunks(Weight::Vital).await.unwrap());
        let (_, chunks) = import(24);
        gone.publish(&chunks).await.unwrap();
        let taken = gone.next().await.unwrap();
        drop(gone);
        let mut came = BTreeSet::new();
        while came.len() < chunks.len() {
            let chunk = timeout(SOON, other.next()).await.unwrap().unwrap();
            other.settle().await.unwrap();
            came.insert(chunk.number);
        }
        assert!(came.contains(&taken.number));
    }
}

/// How long anything may take.
const SOON: Duration = Duration::from_mins(1);

/// What consumers of one log have been told: which partitions are whose.
#[derive(Clone, Default)]
struct Owners(Arc<Mutex<BTreeMap<Partition, BTreeSet<usize>>>>);

impl Owners {
    /// Follows a consumer until its feed is dropped by aborting this.
    fn follow(&self, consumer: usize, feed: Arc<dyn VoteFeed>) -> JoinHandle<()> {
        let owners = self.clone();
        tokio::spawn(async move {
            loop {
                let change = feed.assignment().await.unwrap();
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

    /// What a consumer that is gone had.
    fn forget(&self, consumer: usize) {
        self.0.lock().unwrap().values_mut().for_each(|owners| _ = owners.remove(&consumer));
    }

    /// Waits until all partitions have one owner each, and these are the owners.
    async fn settle(&self, consumers: &[usize]) -> Duration {
        let begun = Instant::now();
        let settled = || {
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
        while !settled() {
            assert!(begun.elapsed() < SOON, "the group settles: {:?}", self.0.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_share_the_partitions_and_take_over_from_one_that_leaves() {
    let stores = stores();
    let owners = Owners::default();
    let mut consumers = BTreeMap::new();
    let mut present = Vec::new();
    for consumer in 0..5 {
        let feed = stores.feed(Weight::Vital).await.unwrap();
        consumers.insert(consumer, (owners.follow(consumer, Arc::clone(&feed)), feed));
        present.push(consumer);
        // The second and third join at once.
        if consumer != 1 {
            println!("{consumer} joined: shared out in {:?}", owners.settle(&present).await);
        }
    }
    for consumer in [2, 0, 4, 1] {
        let (follower, feed) = consumers.remove(&consumer).unwrap();
        follower.abort();
        let _ = follower.await;
        owners.forget(consumer);
        present.retain(|other| *other != consumer);
        let begun = Instant::now();
        drop(feed);
        println!("{consumer} left in {:?}; taken over in {:?}", begun.elapsed(), owners.settle(&present).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_jumps_about_gets_what_it_seeks() {
    let stores = stores();
    let (queue, feed) = (stores.queue(Weight::Vital).await.unwrap(), stores.reader(Weight::Vital).await.unwrap());
    let partition = Partition(7);
    let pending: Vec<_> = (0..3_000).map(|n| queue.publish(partition, vote(n)).unwrap()).collect();
    for receipt in pending {
        receipt.await.unwrap();
    }
    // Records of earlier places are still on their way when the next is sought.
    for step in 0..100_u64 {
        let at = step * 1_237 % 3_000;
        feed.seek(partition, Offset(at)).await.unwrap();
        if step % 3 == 0 {
            continue;
        }
        let batch = feed.next_batch(partition, 10).await.unwrap();
        assert_eq!((batch.from, batch.records[0].offset), (Offset(at), Offset(at)));
        assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, vote(at).vote_id);
    }
}

/// A topic that is refused, and the words with which.
async fn refused(settings: &[(&str, &str)], partitions: i32, options: &str, words: &str) {
    let topic = Topic { options: options.to_owned(), ..Topic::of_the_environment() };
    let dead = format!("{}.dead", topic.name);
    let topics = [&topic.name, &dead].map(|name| {
        let mut made = NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        for (setting, value) in settings {
            made = made.set(setting, value);
        }
        made
    });
    topic.make(&topics).await;
    let Err(refusal) = timeout(SOON, topic.stores().queue(Weight::Vital)).await.unwrap() else {
        panic!("{settings:?} {options} is refused")
    };
    assert!(refusal.to_string().contains(words), "{settings:?} {options}: {refusal}");
    let Err(refusal) = timeout(SOON, topic.stores().reader(Weight::Vital)).await.unwrap() else {
        panic!("{settings:?} {options} is refused for readers, too")
    };
    assert!(refusal.to_string().contains(words), "{settings:?} {options}: {refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_keep_the_promise_is_refused_with_what_to_do() {
    refused(&[], 3, "", "it has 3 partitions and 12 are configured").await;
    refused(&[], 3, "", "give ?partitions=3, or another topic").await;
    refused(&[("retention.ms", "1000")], 12, "", "--add-config retention.ms=-1, or give ?retention=DAYS").await;
    refused(&[], 12, "?retention=7", "retention.ms is -1 and 604800000 is configured").await;
    refused(&[("retention.bytes", "1000")], 12, "", "votes could be deleted before they are counted").await;
    refused(&[("cleanup.policy", "compact")], 12, "", "--add-config cleanup.policy=delete").await;
    refused(&[("message.timestamp.type", "LogAppendTime")], 12, "", "a record's time is the time of acceptance").await;
    refused(&[("unclean.leader.election.enable", "true")], 12, "", "could become leader").await;
    refused(&[("min.insync.replicas", "2")], 12, "", "there are 1 copies: no vote can come in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_copies_than_brokers_are_waited_for() {
    let topic = Topic { options: "?replication=9".to_owned(), ..Topic::of_the_environment() };
    let health = Health::default();
    let stores = topic.stores_shown_at(&health);
    let opening = tokio::spawn(async move { stores.queue(Weight::Vital).await.map(drop) });
    let told = async {
        loop {
            let report = health.report().await;
            let problem = report.checks.first().and_then(|check| check.error.clone()).unwrap_or_default();
            if problem.contains("9 copies are wanted and there are") {
                return report.ready;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(!timeout(SOON, told).await.unwrap());
    assert!(!opening.is_finished());
    opening.abort();
}
