//! Tests of the retention of the ledger by age, while counting is behind. On the log, a duplicate follows its original
//! within the retention. It must not count, however late it is counted. A clock that the test sets is the clock of the
//! producers and of the consumer.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use consumer::{Dependencies, RetentionPolicy};
use serde_json::json;
use service::{CancellationToken, Config, Health, health::Criticality};
use stores::Stores;
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use votes::{
    Counter, LOG_TIME_ERROR, LedgerRetention, LogWriter, Offset, Partition, Retention, Tallies, UnixMillis, Vote,
    WholeLedger, audit, conformance::vote,
};

const PARTITION: Partition = Partition(3);

/// The number of ballots that are cast twice.
const BALLOTS: u64 = 20;

/// The longest time that a test waits for an event.
const TEST_TIMEOUT: Duration = Duration::from_mins(2);

/// The embedded stores, with a consumer and a clock.
struct System {
    log_writer: Arc<dyn LogWriter>,
    stores: Stores,
    ledger: Arc<dyn WholeLedger>,
    tallies: Arc<dyn Tallies>,
    retention: Duration,
    now: Arc<AtomicI64>,
    consumer: Option<(CancellationToken, JoinHandle<()>)>,
    _folder: TempDir,
}

impl System {
    async fn new(retention: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = "embedded:";
        let embedded = json!({ "data": folder.path(), "vote_log": url, "tallies": url, "ledger": url });
        let stores = Stores::open(&Config::load(None, embedded, 0).unwrap(), &Health::default()).unwrap();
        Self {
            log_writer: stores.log_writer(Criticality::Required).await.unwrap(),
            ledger: stores.ledger(Criticality::Required).await.unwrap(),
            tallies: stores.tallies(Criticality::Required).await.unwrap(),
            stores,
            retention,
            now: Arc::new(AtomicI64::new(UnixMillis::now().0)),
            consumer: None,
            _folder: folder,
        }
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Publishes votes with the numbers `[from, from + count)`, for the band that `name` returns.
    async fn cast(&self, from: u64, count: u64, name: impl Fn(Vote) -> Vote) {
        let mut receipts = Vec::new();
        for n in from..from + count {
            let accepted_at = UnixMillis(self.now.load(Ordering::SeqCst));
            receipts.push(self.log_writer.publish(PARTITION, Vote { accepted_at, ..name(vote(n)) }).unwrap());
        }
        for receipt in receipts {
            receipt.await.unwrap();
        }
    }

    async fn start(&mut self) {
        let log_reader = self.stores.log_reader(Criticality::Required).await.unwrap();
        let ledger: Arc<dyn LedgerRetention> = self.ledger.clone();
        let now = Arc::clone(&self.now);
        let retention = RetentionPolicy::new(None, Some(Retention::Age(self.retention)), &ledger, &self.tallies)
            .with_clock(move || UnixMillis(now.load(Ordering::SeqCst)));
        let counter = Counter::new(self.ledger.clone(), Arc::clone(&self.tallies));
        let dependencies = Dependencies { counter, retention, health: Health::default(), until_assigned: None };
        let shutdown = CancellationToken::new();
        let service = consumer::run(log_reader, dependencies, shutdown.clone());
        self.consumer = Some((shutdown, tokio::spawn(async move { service.await.unwrap() })));
    }

    async fn stop(&mut self) {
        let (shutdown, task) = self.consumer.take().expect("the consumer is running");
        shutdown.cancel();
        task.await.unwrap();
    }

    async fn wait_until_counted(&self, offset: u64) {
        let is_counted = async || self.tallies.position(PARTITION).await.unwrap().offset >= Offset(offset);
        wait_for("the votes to be counted", is_counted).await;
    }

    /// Waits until the votes below this offset have expired and were deleted.
    async fn wait_until_expired(&self, offset: u64) {
        let is_expired = async || {
            self.ledger.checkpoint(PARTITION).await.unwrap().cut_off >= Offset(offset)
                && self.ledger.range(PARTITION, Offset(0), Offset(offset), 1).await.unwrap().is_empty()
        };
        wait_for("the votes to expire", is_expired).await;
    }

    async fn total(&self) -> u64 {
        self.tallies.snapshot().await.unwrap().contests.values().map(votes::ContestCounts::total).sum()
    }

    /// Checks that this many votes count, by the tallies and by the audit. Returns the age of the youngest vote that has
    /// expired.
    async fn check(&self, votes: u64, case: &str) -> Option<f64> {
        assert_eq!(self.total().await, votes, "{case}");
        let log_reader = self.stores.log_reader(Criticality::Required).await.unwrap();
        let report = audit(&*log_reader, &*self.ledger, &*self.tallies, &mut |_, _| ()).await.unwrap();
        assert!(report.ok, "{case}: {report:?}");
        assert_eq!((report.ledger, report.tallies), (votes, votes), "{case}");
        report.youngest_expired_seconds
    }
}

/// Waits until the condition is true, for at most [`TEST_TIMEOUT`].
async fn wait_for(event: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TEST_TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {event}"));
}

/// The vote of a voter who has one vote. The producer gives each vote of the voter the same ballot key.
fn for_band(name: &str) -> impl Fn(Vote) -> Vote {
    move |vote| Vote { name: name.to_owned(), ..vote }
}

/// A history of duplicates that are counted late.
struct Case {
    name: &'static str,
    retention: u64,
    /// The seconds between the original and its duplicate on the log.
    gap: u64,
    /// The number of other votes between them.
    others: u64,
    /// Whether the originals were counted before the consumer stopped.
    are_originals_counted: bool,
    /// The seconds for which the consumer is away after the duplicates were cast.
    away: u64,
}

const CASES: [Case; 8] = [
    Case { name: "away between the two", retention: 15, gap: 2, others: 0, are_originals_counted: true, away: 25 },
    Case { name: "away for longer", retention: 60, gap: 2, others: 0, are_originals_counted: true, away: 72 },
    Case {
        name: "away for five times the retention",
        retention: 15,
        gap: 1,
        others: 0,
        are_originals_counted: true,
        away: 75,
    },
    Case { name: "a backlog", retention: 15, gap: 2, others: 6_000, are_originals_counted: false, away: 25 },
    Case { name: "a backlog of one batch", retention: 15, gap: 2, others: 300, are_originals_counted: false, away: 25 },
    Case {
        name: "the shortest retention",
        retention: 1,
        gap: 1,
        others: 3_000,
        are_originals_counted: false,
        away: 3_600,
    },
    Case {
        name: "a duplicate at the end of the retention",
        retention: 60,
        gap: 60,
        others: 3_000,
        are_originals_counted: true,
        away: 86_400,
    },
    Case { name: "not away", retention: 15, gap: 2, others: 0, are_originals_counted: true, away: 0 },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_within_the_retention_does_not_count_however_late_it_is_counted() {
    for Case { name, retention, gap, others, are_originals_counted, away } in CASES {
        let retention = Duration::from_secs(retention);
        let mut system = System::new(retention).await;
        system.cast(0, BALLOTS, for_band("Queen")).await;
        if are_originals_counted {
            system.start().await;
            system.wait_until_counted(BALLOTS).await;
            system.stop().await;
        }
        system.pass(Duration::from_secs(gap));
        system.cast(BALLOTS, others, for_band("Other")).await;
        // The same ballots, for another band: a voter with one vote, who votes again.
        system.cast(0, BALLOTS, for_band("ABBA")).await;
        system.pass(Duration::from_secs(away));
        system.start().await;
        system.wait_until_counted(2 * BALLOTS + others).await;
        let votes = BALLOTS + others;
        assert_eq!(system.total().await, votes, "{name}");
        // Then all votes exceed the retention by the clock, and expire.
        system.pass(2 * retention + LOG_TIME_ERROR);
        system.wait_until_expired(2 * BALLOTS + others).await;
        let youngest = system.check(votes, name).await.expect("votes have expired");
        assert!(youngest >= retention.as_secs_f64(), "{name}: a vote expired at the age of {youngest} s");
        system.stop().await;
    }
}

/// Without the duplicates, the horizon can't be seen to be too long: a duplicate that follows after the retention, and
/// after the allowed error of clocks, counts again.
#[tokio::test(flavor = "multi_thread")]
async fn votes_expire_while_counting_is_behind() {
    let retention = Duration::from_mins(1);
    let mut system = System::new(retention).await;
    system.cast(0, 100, for_band("Queen")).await;
    system.pass(2 * retention + LOG_TIME_ERROR);
    system.cast(100, 3_000, for_band("ABBA")).await;
    system.start().await;
    system.wait_until_counted(3_100).await;
    system.wait_until_expired(100).await;
    assert_eq!(system.ledger.checkpoint(PARTITION).await.unwrap().cut_off, Offset(100));
    system.check(3_100, "behind").await;
    system.stop().await;
}
