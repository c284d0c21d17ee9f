//! A partition that is taken away at a bad moment is counted when it comes back.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use backends::Stores;
use consumer::Keeping;
use serde_json::json;
use service::{CancellationToken, Config, Health, health::Weight};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::{sleep, timeout},
};
use votes::{
    Assignment, Batch, Bounds, Counter, DeadLetter, Facts, Offset, Partition, Retention, Store, StoreError, Tallies,
    VoteFeed, VoteQueue, conformance::vote,
};

const PARTITION: Partition = Partition(3);

/// How long anything may take.
const SOON: Duration = Duration::from_mins(1);

/// A feed whose partitions are given and taken on command, and whose records don't come while it is away.
struct Commanded {
    feed: Arc<dyn VoteFeed>,
    changes: Mutex<mpsc::UnboundedReceiver<Assignment>>,
    is_away: AtomicBool,
    /// Somebody waits for records that don't come.
    waited: Notify,
}

#[async_trait]
impl Store for Commanded {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.feed.check().await
    }
}

#[async_trait]
impl VoteFeed for Commanded {
    fn partitions(&self) -> u16 {
        self.feed.partitions()
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        let change = self.changes.lock().await.recv().await;
        change.ok_or_else(|| StoreError::new("vote log", "the test is over"))
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.feed.bounds(partition).await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        self.feed.seek(partition, at).await
    }

    async fn next_batch(&self, partition: Partition, most: usize) -> Result<Batch, StoreError> {
        if self.is_away.load(Ordering::Relaxed) {
            self.waited.notify_one();
            std::future::pending::<()>().await;
        }
        self.feed.next_batch(partition, most).await
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        self.feed.commit(partition, position).await
    }

    async fn expire(&self, partition: Partition, retention: Retention, counted: Offset) -> Result<u64, StoreError> {
        self.feed.expire(partition, retention, counted).await
    }

    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError> {
        self.feed.bury(dead).await
    }

    async fn dead(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<DeadLetter>, StoreError> {
        self.feed.dead(partition, from, to).await
    }
}

async fn cast(queue: &dyn VoteQueue, number: u64) {
    queue.publish(PARTITION, vote(number)).unwrap().await.unwrap();
}

async fn counted_up_to(tallies: &dyn Tallies, offset: u64) {
    let counted = async {
        while tallies.position(PARTITION).await.unwrap() < Offset(offset) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, counted).await.expect("votes are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_revoked_while_the_log_is_away_is_counted_when_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let here = "embedded:";
    let config = json!({ "data": folder.path(), "queue": here, "tally": here, "book": here });
    let stores = Stores::open(&Config::load(None, config, 0).unwrap(), &Health::default()).unwrap();
    let (queue, feed) = (stores.queue(Weight::Vital).await.unwrap(), stores.feed(Weight::Vital).await.unwrap());
    let (book, tallies) = (stores.book(Weight::Vital).await.unwrap(), stores.tallies(Weight::Vital).await.unwrap());
    let (decide, changes) = mpsc::unbounded_channel();
    let commanded = Arc::new(Commanded {
        feed,
        changes: Mutex::new(changes),
        is_away: AtomicBool::new(false),
        waited: Notify::new(),
    });
    let assigned = || decide.send(Assignment::Assigned(vec![PARTITION])).unwrap();
    let revoked = || decide.send(Assignment::Revoked(vec![PARTITION])).unwrap();
    let shutdown = CancellationToken::new();
    let consumer = tokio::spawn({
        let (feed, counter) = (commanded.clone(), Counter::new(Arc::clone(&book), Arc::clone(&tallies)));
        consumer::run(feed, counter, Keeping::default(), Health::default(), shutdown.clone(), || ())
    });

    assigned();
    cast(&*queue, 1).await;
    counted_up_to(&*tallies, 1).await;
    revoked();
    // Whoever begins again asks the log for the last record that was counted.
    commanded.is_away.store(true, Ordering::Relaxed);
    assigned();
    timeout(SOON, commanded.waited.notified()).await.unwrap();
    revoked();
    commanded.is_away.store(false, Ordering::Relaxed);
    assigned();
    cast(&*queue, 2).await;
    counted_up_to(&*tallies, 2).await;

    // And it can leave in such a moment.
    revoked();
    commanded.is_away.store(true, Ordering::Relaxed);
    assigned();
    timeout(SOON, commanded.waited.notified()).await.unwrap();
    shutdown.cancel();
    timeout(SOON, consumer).await.unwrap().unwrap().unwrap();
}
