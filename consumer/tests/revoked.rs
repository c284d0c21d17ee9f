//! Tests of a partition that is revoked while its task waits for the log. It must be counted after it is assigned
//! again.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use consumer::{Dependencies, RetentionPolicy};
use serde_json::json;
use service::{CancellationToken, Config, Health, health::Criticality};
use stores::Stores;
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::{sleep, timeout},
};
use votes::{
    Assignment, Batch, Bounds, Counter, DeadLetter, DeadLetterReader, HealthDetails, LogReader, LogWriter, Offset,
    Partition, Retention, Store, StoreError, Tallies, UnixMillis, conformance::vote,
};

const PARTITION: Partition = Partition(3);

/// The longest time that a test waits for an event.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// A log reader that assigns and revokes partitions on command, and returns no records while the log is unavailable.
struct ControlledReader {
    log_reader: Arc<dyn LogReader>,
    assignments: Mutex<mpsc::UnboundedReceiver<Assignment>>,
    is_unavailable: AtomicBool,
    /// Notified when the consumer waits for a batch while the log is unavailable.
    waited: Notify,
}

#[async_trait]
impl Store for ControlledReader {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.log_reader.check().await
    }
}

#[async_trait]
impl LogReader for ControlledReader {
    fn partitions(&self) -> u16 {
        self.log_reader.partitions()
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        let assignment = self.assignments.lock().await.recv().await;
        assignment.ok_or_else(|| StoreError::new("vote log", "the test has ended"))
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.log_reader.bounds(partition).await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        self.log_reader.seek(partition, at).await
    }

    async fn next_batch(&self, partition: Partition, max_records: usize) -> Result<Batch, StoreError> {
        if self.is_unavailable.load(Ordering::Relaxed) {
            self.waited.notify_one();
            std::future::pending::<()>().await;
        }
        self.log_reader.next_batch(partition, max_records).await
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        self.log_reader.commit(partition, position).await
    }

    async fn expire(
        &self,
        counted: &[(Partition, Offset)],
        retention: Retention,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.log_reader.expire(counted, retention, now).await
    }

    async fn send_to_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.log_reader.send_to_dead_letters(dead_letters).await
    }

    async fn dead_letters(&self, partition: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError> {
        self.log_reader.dead_letters(partition).await
    }
}

async fn cast(log_writer: &dyn LogWriter, number: u64) {
    log_writer.publish(PARTITION, vote(number)).unwrap().await.unwrap();
}

async fn wait_until_counted(tallies: &dyn Tallies, offset: u64) {
    let counted = async {
        while tallies.position(PARTITION).await.unwrap().offset < Offset(offset) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TEST_TIMEOUT, counted).await.expect("the votes were not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_revoked_while_the_log_is_unavailable_is_counted_when_it_is_assigned_again() {
    let folder = tempfile::tempdir().unwrap();
    let url = "embedded:";
    let config = json!({ "data": folder.path(), "vote_log": url, "tallies": url, "ledger": url });
    let stores = Stores::open(&Config::load(None, config, 0).unwrap(), &Health::default()).unwrap();
    let (log_writer, log_reader) = (
        stores.log_writer(Criticality::Required).await.unwrap(),
        stores.log_reader(Criticality::Required).await.unwrap(),
    );
    let (ledger, tallies) =
        (stores.ledger(Criticality::Required).await.unwrap(), stores.tallies(Criticality::Required).await.unwrap());
    let (sender, assignments) = mpsc::unbounded_channel();
    let controlled = Arc::new(ControlledReader {
        log_reader,
        assignments: Mutex::new(assignments),
        is_unavailable: AtomicBool::new(false),
        waited: Notify::new(),
    });
    let assign = || sender.send(Assignment::Assigned(vec![PARTITION])).unwrap();
    let revoke = || sender.send(Assignment::Revoked(vec![PARTITION])).unwrap();
    let shutdown = CancellationToken::new();
    let consumer = tokio::spawn({
        let (log_reader, counter) = (controlled.clone(), Counter::new(ledger.clone(), Arc::clone(&tallies)));
        let dependencies = Dependencies {
            counter,
            retention: RetentionPolicy::default(),
            health: Health::default(),
            until_assigned: None,
        };
        consumer::run(log_reader, dependencies, shutdown.clone())
    });

    assign();
    cast(&*log_writer, 1).await;
    wait_until_counted(&*tallies, 1).await;
    revoke();
    // At its start, a task reads the last counted record from the log. Here, it waits for that record.
    controlled.is_unavailable.store(true, Ordering::Relaxed);
    assign();
    timeout(TEST_TIMEOUT, controlled.waited.notified()).await.unwrap();
    revoke();
    controlled.is_unavailable.store(false, Ordering::Relaxed);
    assign();
    cast(&*log_writer, 2).await;
    wait_until_counted(&*tallies, 2).await;

    // The consumer can also shut down while a task waits.
    revoke();
    controlled.is_unavailable.store(true, Ordering::Relaxed);
    assign();
    timeout(TEST_TIMEOUT, controlled.waited.notified()).await.unwrap();
    shutdown.cancel();
    timeout(TEST_TIMEOUT, consumer).await.unwrap().unwrap().unwrap();
}
