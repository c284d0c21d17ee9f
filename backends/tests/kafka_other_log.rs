//! A vote log that is not the one that was counted, or lost votes: each partition stops with a sentence that says what to do,
//! and nothing is counted twice. `dev/stack up` starts the Kafka.
#![cfg(all(feature = "kafka", feature = "embedded"))]
#![allow(clippy::unwrap_used)]

mod kafka_cluster;

use std::{ops::Range, sync::Arc, time::Duration};

use backends::Stores;
use consumer::Keeping;
use kafka_cluster::Topic;
use serde_json::json;
use service::{CancellationToken, Config, Health, health::Weight};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use votes::{Book, Checkpoint, Counter, LoggedVote, Offset, Partition, Tallies, VoteId, VoteQueue, conformance::vote};

const PARTITION: Partition = Partition(3);

/// How long anything may take.
const SOON: Duration = Duration::from_mins(1);

/// A topic on Kafka, and a book and tallies of its votes.
struct System {
    topic: Topic,
    book: Arc<dyn Book>,
    tallies: Arc<dyn Tallies>,
    consumer: Option<Consumer>,
    _folder: TempDir,
}

struct Consumer {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl System {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let here = "embedded:";
        let embedded = json!({ "data": folder.path(), "queue": here, "tally": here, "book": here });
        let stores = Stores::open(&Config::load(None, embedded, 0).unwrap(), &Health::default()).unwrap();
        let (book, tallies) = (stores.book(Weight::Vital).await.unwrap(), stores.tallies(Weight::Vital).await.unwrap());
        Self { topic: Topic::of_the_environment(), book, tallies, consumer: None, _folder: folder }
    }

    /// A system that has counted twenty votes, with its consumer stopped.
    async fn with_twenty_counted() -> Self {
        let mut system = Self::new().await;
        system.cast(0..20).await;
        system.start().await;
        system.counted_up_to(20).await;
        system.stop().await;
        system
    }

    /// Casts votes at a new door.
    async fn cast(&self, numbers: Range<u64>) {
        let queue = self.topic.stores().queue(Weight::Vital).await.unwrap();
        assert_eq!(cast(&*queue, numbers.clone()).await.len(), numbers.count());
    }

    async fn start(&mut self) {
        let feed = self.topic.stores().feed(Weight::Vital).await.unwrap();
        let counter = Counter::new(Arc::clone(&self.book), Arc::clone(&self.tallies));
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let task = tokio::spawn({
            let (health, shutdown) = (health.clone(), shutdown.clone());
            async move { consumer::run(feed, counter, Keeping::default(), health, shutdown, || ()).await.unwrap() }
        });
        self.consumer = Some(Consumer { health, shutdown, task });
    }

    async fn stop(&mut self) {
        let consumer = self.consumer.take().expect("it runs");
        consumer.shutdown.cancel();
        consumer.task.await.unwrap();
    }

    async fn counted_up_to(&self, offset: u64) {
        let counted = async {
            while self.tallies.position(PARTITION).await.unwrap() < Offset(offset) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, counted).await.expect("votes are counted");
    }

    /// Waits until the partition has stopped for good, and returns what `/health` says.
    async fn stopped(&self) -> String {
        let consumer = self.consumer.as_ref().expect("it runs");
        let stopped = async {
            loop {
                let report = consumer.health.report().await;
                let problem = report.checks.into_iter().find_map(|check| check.error);
                if let Some(problem) = problem.filter(|problem| problem.starts_with("partition ")) {
                    return problem;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, stopped).await.expect("the partition stops")
    }

    /// The partition's position, and all votes in the tallies.
    async fn tally(&self) -> (Offset, u64) {
        let snapshot = self.tallies.snapshot().await.unwrap();
        let votes = snapshot.contests.values().flat_map(|contest| contest.bands.values()).sum();
        (snapshot.positions[&PARTITION], votes)
    }
}

/// Casts votes; returns the ids and the offsets of those that were acknowledged.
async fn cast(queue: &dyn VoteQueue, numbers: Range<u64>) -> Vec<(VoteId, Offset)> {
    let pending: Vec<_> = numbers
        .map(|n| {
            let vote = vote(n);
            (vote.vote_id, queue.publish(PARTITION, vote).unwrap())
        })
        .collect();
    let mut acknowledged = Vec::new();
    for (vote_id, receipt) in pending {
        acknowledged.extend(receipt.await.ok().map(|receipt| (vote_id, receipt.place.offset)));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_under_a_running_consumer_stops_it_before_a_vote_is_counted() {
    let mut system = System::new().await;
    system.cast(0..20).await;
    let queue = system.topic.stores().queue(Weight::Vital).await.unwrap();
    system.start().await;
    system.counted_up_to(20).await;
    system.topic.make_anew().await;
    // More votes at once than were counted of the old log: its position is a place of the new one.
    let mut acknowledged = Vec::new();
    let mut numbers = (1_000..).step_by(100);
    let old = loop {
        let first = numbers.next().unwrap();
        acknowledged.extend(cast(&*queue, first..first + 100).await);
        // Brokers go on with a deleted log for a moment. Those votes are at places beyond the counted; the new log begins at 0.
        let old = acknowledged.iter().position(|(_, offset)| *offset == Offset(0));
        if let Some(old) = old.filter(|old| acknowledged.len() > old + 100) {
            break old;
        }
    };
    let problem = system.stopped().await;
    // The topic may have been looked at before it had those votes.
    assert!(problem.contains("this is not the log that was counted. Restore that log, or begin"), "{problem}");
    let (position, votes) = system.tally().await;
    assert_eq!(Offset(votes), position);
    assert_eq!(system.book.checkpoint(PARTITION).await.unwrap().offset, position);
    let counted = system.book.range(PARTITION, Offset(20), Offset(u64::MAX >> 1), 10_000).await.unwrap();
    println!("{old} acknowledged by the deleted log, {} of them counted", counted.len());
    for LoggedVote { place, vote } in counted {
        assert!(acknowledged[..old].contains(&(vote.vote_id, place.offset)), "{vote:?} is of the other log");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_while_consumers_were_away_is_noticed() {
    for (votes, sentence) in [(1_200, "is not on the log at offset 19"), (1_010, "but the log ends at 10")] {
        let mut system = System::with_twenty_counted().await;
        system.topic.delete().await;
        system.cast(1_000..votes).await;
        system.start().await;
        let problem = system.stopped().await;
        assert!(problem.contains(sentence), "{problem}");
        assert!(problem.contains("Restore that log, or begin with empty stores"), "{problem}");
        assert_eq!(system.tally().await, (Offset(20), 20));
        system.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_logs_end_stops_the_partition() {
    let mut system = System::with_twenty_counted().await;
    let ahead = Checkpoint { offset: Offset(40), last: Some((Offset(39), vote(39).vote_id)), cut_off: Offset(0) };
    system.book.advance(PARTITION, Offset(20), ahead).await.unwrap();
    system.start().await;
    let problem = system.stopped().await;
    assert!(problem.contains("the position in the book is 40, but the log ends at 20"), "{problem}");
    assert_eq!(system.tally().await, (Offset(20), 20));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_that_were_deleted_before_they_were_counted_are_named_and_the_way_out_works() {
    let mut system = System::with_twenty_counted().await;
    system.cast(20..50).await;
    system.topic.delete_records(PARTITION, Offset(30)).await;
    system.start().await;
    let problem = system.stopped().await;
    assert!(problem.contains("the votes [20, 30) were deleted before they were counted"), "{problem}");
    assert!(problem.contains("ovation replay book --partition 3 --from 30"), "{problem}");
    assert_eq!(system.tally().await, (Offset(20), 20));
    system.stop().await;

    // What that command does.
    system.book.rewind(PARTITION, Offset(30)).await.unwrap();
    system.start().await;
    system.counted_up_to(50).await;
    assert_eq!(system.tally().await, (Offset(50), 40));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_that_are_deleted_under_a_running_consumer_stop_it_too() {
    // The feed is behind, as after a pause: it has sought the place, and the log's start passes it.
    let system = System::with_twenty_counted().await;
    system.cast(20..50).await;
    let reader = system.topic.stores().reader(Weight::Vital).await.unwrap();
    system.topic.delete_records(PARTITION, Offset(30)).await;
    reader.seek(PARTITION, Offset(20)).await.unwrap();
    let error = timeout(SOON, reader.next_batch(PARTITION, 10)).await.unwrap().unwrap_err();
    assert!(error.problem.contains("partition 3"), "{error}");
}
