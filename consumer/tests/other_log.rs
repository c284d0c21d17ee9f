//! Tests with a vote log that is not the log that was counted, or that lost votes. The partition halts with an error
//! that tells the operator what to do, and no vote is counted twice. `dev/stack up` starts the Kafka that these tests
//! need.
#![allow(clippy::unwrap_used)]

#[path = "../../stores/tests/kafka_cluster/mod.rs"]
mod kafka_cluster;

use std::{ops::Range, sync::Arc, time::Duration};

use consumer::{Dependencies, RetentionPolicy};
use kafka_cluster::Topic;
use serde_json::json;
use service::{CancellationToken, Config, Health, health::Criticality};
use stores::Stores;
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use votes::{
    Checkpoint, Counter, LogWriter, LoggedVote, Offset, Partition, Tallies, VoteId, WholeLedger, conformance::vote,
};

const PARTITION: Partition = Partition(3);

/// The longest time that a test waits for an event.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// A topic on Kafka, with a ledger and tallies for its votes.
struct System {
    topic: Topic,
    ledger: Arc<dyn WholeLedger>,
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
        let url = "embedded:";
        let embedded = json!({ "data": folder.path(), "vote_log": url, "tallies": url, "ledger": url });
        let stores = Stores::open(&Config::load(None, embedded, 0).unwrap(), &Health::default()).unwrap();
        let (ledger, tallies) =
            (stores.ledger(Criticality::Required).await.unwrap(), stores.tallies(Criticality::Required).await.unwrap());
        Self { topic: Topic::from_environment(), ledger, tallies, consumer: None, _folder: folder }
    }

    /// Creates a system that has counted twenty votes and whose consumer is stopped.
    async fn with_twenty_counted() -> Self {
        let mut system = Self::new().await;
        system.cast(0..20).await;
        system.start().await;
        system.wait_until_counted(20).await;
        system.stop().await;
        system
    }

    /// Publishes votes with a new log writer, and checks that all are acknowledged.
    async fn cast(&self, numbers: Range<u64>) {
        let log_writer = self.topic.stores().log_writer(Criticality::Required).await.unwrap();
        assert_eq!(cast(&*log_writer, numbers.clone()).await.len(), numbers.count());
    }

    async fn start(&mut self) {
        let log_reader = self.topic.stores().log_reader(Criticality::Required).await.unwrap();
        let counter = Counter::new(self.ledger.clone(), Arc::clone(&self.tallies));
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let task = tokio::spawn({
            let (health, shutdown) = (health.clone(), shutdown.clone());
            let dependencies =
                Dependencies { counter, retention: RetentionPolicy::default(), health, until_assigned: None };
            async move { consumer::run(log_reader, dependencies, shutdown).await.unwrap() }
        });
        self.consumer = Some(Consumer { health, shutdown, task });
    }

    async fn stop(&mut self) {
        let consumer = self.consumer.take().expect("the consumer is running");
        consumer.shutdown.cancel();
        consumer.task.await.unwrap();
    }

    async fn wait_until_counted(&self, offset: u64) {
        let counted = async {
            while self.tallies.position(PARTITION).await.unwrap().offset < Offset(offset) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TEST_TIMEOUT, counted).await.expect("the votes were not counted");
    }

    /// Waits until the partition has halted, and returns the error in `/health`.
    async fn wait_until_halted(&self) -> String {
        let consumer = self.consumer.as_ref().expect("the consumer is running");
        let halted = async {
            loop {
                let report = consumer.health.report().await;
                let problem = report.checks.into_iter().find_map(|check| check.error);
                if let Some(problem) = problem.filter(|problem| problem.starts_with("partition ")) {
                    return problem;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TEST_TIMEOUT, halted).await.expect("the partition did not halt")
    }

    /// Returns the partition's position and the number of all votes in the tallies.
    async fn tally(&self) -> (Offset, u64) {
        let snapshot = self.tallies.snapshot().await.unwrap();
        let votes = snapshot.contests.values().flat_map(|contest| contest.bands.values()).sum();
        (snapshot.positions[&PARTITION], votes)
    }
}

/// Publishes votes. Returns the ids and the offsets of those that were acknowledged.
async fn cast(log_writer: &dyn LogWriter, numbers: Range<u64>) -> Vec<(VoteId, Offset)> {
    let pending: Vec<_> = numbers
        .map(|n| {
            let vote = vote(n);
            (vote.vote_id, log_writer.publish(PARTITION, vote).unwrap())
        })
        .collect();
    let mut acknowledged = Vec::new();
    for (vote_id, receipt) in pending {
        acknowledged.extend(receipt.await.ok().map(|receipt| (vote_id, receipt.position.offset)));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_recreated_under_a_running_consumer_halts_it_before_a_vote_is_counted() {
    let mut system = System::new().await;
    system.cast(0..20).await;
    let log_writer = system.topic.stores().log_writer(Criticality::Required).await.unwrap();
    system.start().await;
    system.wait_until_counted(20).await;
    system.topic.recreate().await;
    // Publish more votes than were counted from the old log, so that the new log also has the counted position.
    let mut acknowledged = Vec::new();
    let mut numbers = (1_000..).step_by(100);
    let old = loop {
        let first = numbers.next().unwrap();
        acknowledged.extend(cast(&*log_writer, first..first + 100).await);
        // For a moment, brokers still accept votes on the deleted log, at offsets after the counted votes. The new log
        // begins at offset 0.
        let old = acknowledged.iter().position(|(_, offset)| *offset == Offset(0));
        if let Some(old) = old.filter(|old| acknowledged.len() > old + 100) {
            break old;
        }
    };
    let problem = system.wait_until_halted().await;
    // The offsets in the error depend on when the consumer read the new topic, so this does not check them.
    assert!(problem.contains("this is not the log that was counted. Correct the URL"), "{problem}");
    let (position, votes) = system.tally().await;
    assert_eq!(Offset(votes), position);
    assert_eq!(system.ledger.checkpoint(PARTITION).await.unwrap().offset, position);
    let counted = system.ledger.range(PARTITION, Offset(20), Offset(u64::MAX >> 1), 10_000).await.unwrap();
    println!("{old} acknowledged by the deleted log, {} of them counted", counted.len());
    for LoggedVote { position, vote } in counted {
        assert!(acknowledged[..old].contains(&(vote.vote_id, position.offset)), "{vote:?} is from the other log");
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_recreated_while_no_consumer_ran_is_detected() {
    for (votes, sentence) in [(1_200, "is not on the log at offset 19"), (1_010, "but the log ends at 10")] {
        let mut system = System::with_twenty_counted().await;
        system.topic.delete().await;
        system.cast(1_000..votes).await;
        system.start().await;
        let problem = system.wait_until_halted().await;
        assert!(problem.contains(sentence), "{problem}");
        assert!(problem.contains("count the new topic with an empty ledger and empty tallies"), "{problem}");
        assert_eq!(system.tally().await, (Offset(20), 20));
        system.stop().await;
    }
}

/// Two systems use the same tallies by mistake. The second one has a log and a ledger of its own.
#[tokio::test(flavor = "multi_thread")]
async fn tallies_that_another_system_counts_into_halt_the_partition_before_a_vote_is_counted() {
    let mut first = System::with_twenty_counted().await;
    let mut second = System { tallies: first.tallies.clone(), ..System::new().await };
    second.start().await;
    for (votes, sentence) in
        [(1_000..1_010, "the position in the tallies is 20, but the log ends at 10"), (1_010..1_050, "at offset 19")]
    {
        second.cast(votes).await;
        let halted = async {
            while !second.wait_until_halted().await.contains(sentence) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TEST_TIMEOUT, halted).await.expect(sentence);
        assert_eq!(first.tally().await, (Offset(20), 20));
        assert_eq!(second.ledger.checkpoint(PARTITION).await.unwrap(), Checkpoint::default());
    }
    assert!(second.wait_until_halted().await.contains("another system"));
    // The first system is right, and continues.
    first.start().await;
    first.cast(20..30).await;
    first.wait_until_counted(30).await;
    assert_eq!(first.tally().await, (Offset(30), 30));
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_after_the_end_of_the_log_halts_the_partition() {
    let mut system = System::with_twenty_counted().await;
    let ahead = Checkpoint { offset: Offset(40), last: Some((Offset(39), vote(39).vote_id)), cut_off: Offset(0) };
    system.ledger.advance_checkpoint(PARTITION, Offset(20), ahead).await.unwrap();
    system.start().await;
    let problem = system.wait_until_halted().await;
    assert!(problem.contains("the position in the ledger is 40, but the log ends at 20"), "{problem}");
    assert_eq!(system.tally().await, (Offset(20), 20));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_that_were_deleted_before_they_were_counted_are_reported_and_the_suggested_command_works() {
    let mut system = System::with_twenty_counted().await;
    system.cast(20..50).await;
    system.topic.delete_records(PARTITION, Offset(30)).await;
    system.start().await;
    let problem = system.wait_until_halted().await;
    assert!(problem.contains("the 10 records [20, 30) were deleted before they were counted"), "{problem}");
    assert!(problem.contains("ovation replay ledger --partition 3 --from 30"), "{problem}");
    assert_eq!(system.tally().await, (Offset(20), 20));
    system.stop().await;

    // The command does the same.
    system.ledger.rewind(PARTITION, Offset(30)).await.unwrap();
    system.start().await;
    system.wait_until_counted(50).await;
    assert_eq!(system.tally().await, (Offset(50), 40));
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_that_are_deleted_under_a_running_consumer_are_an_error() {
    // The log reader is late, as after a pause: it seeks offset 20, but the log now begins at offset 30.
    let system = System::with_twenty_counted().await;
    system.cast(20..50).await;
    let reader = system.topic.stores().standalone_log_reader(Criticality::Required).await.unwrap();
    system.topic.delete_records(PARTITION, Offset(30)).await;
    reader.seek(PARTITION, Offset(20)).await.unwrap();
    let error = timeout(TEST_TIMEOUT, reader.next_batch(PARTITION, 10)).await.unwrap().unwrap_err();
    assert!(error.problem.contains("partition 3"), "{error}");
}
