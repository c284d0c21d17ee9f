//! The retention of each store, and what all partitions share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, describe_counter};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    time::Instant,
};
use votes::{Expiry, LedgerRetention, Partition, Retention, StoreError, Tallies, UnixMillis};

/// The interval at which a size is measured, and at which a partition without votes is looked at again.
pub(super) const RETENTION_INTERVAL: Duration = Duration::from_millis(500);

/// The pause after a store failed.
pub(super) const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The names of the stores in metrics and in errors.
pub(super) const LEDGER: &str = "ledger";
pub(super) const LOG: &str = "log";

type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// How many counted votes the vote log and the ledger retain.
#[derive(Clone)]
pub struct RetentionPolicy {
    pub(super) log: Option<Retention>,
    pub(super) ledger: Option<Arc<LedgerPolicy>>,
    clock: Clock,
    pub(super) failures: Failures,
}

/// The retention of the ledger, shared by all partitions.
pub(super) struct LedgerPolicy {
    pub(super) retention: Retention,
    pub(super) store: Arc<dyn LedgerRetention>,
    pub(super) expiry: Expiry,
    /// The size of the ledger and when it was measured. Measuring it is expensive.
    size: AsyncMutex<Option<(Instant, u64)>>,
    /// Permits one step at a time.
    pub(super) step: Semaphore,
    /// The partitions whose summaries have grown since they were compacted.
    grown: Mutex<BTreeSet<Partition>>,
}

impl Default for RetentionPolicy {
    /// Retains all votes.
    fn default() -> Self {
        Self { log: None, ledger: None, clock: Arc::new(UnixMillis::now), failures: Failures::default() }
    }
}

impl RetentionPolicy {
    /// Creates a policy from the retention of the vote log and that of the ledger. `None` retains all votes.
    pub fn new(
        log: Option<Retention>,
        ledger: Option<Retention>,
        store: &Arc<dyn LedgerRetention>,
        tallies: &Arc<dyn Tallies>,
    ) -> Self {
        let ledger = ledger.map(|retention| {
            Arc::new(LedgerPolicy {
                retention,
                store: Arc::clone(store),
                expiry: Expiry::new(Arc::clone(store), Arc::clone(tallies)),
                size: AsyncMutex::default(),
                step: Semaphore::new(1),
                grown: Mutex::default(),
            })
        });
        Self { log, ledger, ..Self::default() }
    }

    /// Reads the time from this clock instead of the clock of the system.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> UnixMillis + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Returns whether any votes expire.
    pub(crate) fn is_limited(&self) -> bool {
        self.log.is_some() || self.ledger.is_some()
    }

    /// Returns the time of the clock.
    pub(super) fn now(&self) -> UnixMillis {
        (self.clock)()
    }

    /// Describes the current problem, if there is one: a failure since votes last expired.
    pub(crate) fn problem(&self) -> Option<String> {
        self.failures.problem()
    }
}

impl LedgerPolicy {
    /// Returns the size in bytes. It was measured at most [`RETENTION_INTERVAL`] ago.
    pub(super) async fn size(&self) -> Result<u64, StoreError> {
        let mut size = self.size.lock().await;
        match *size {
            Some((at, size)) if at.elapsed() < RETENTION_INTERVAL => Ok(size),
            _ => {
                let now = self.store.size().await?;
                *size = Some((Instant::now(), now));
                Ok(now)
            }
        }
    }

    pub(super) fn grown(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers the metrics of retention.
pub(crate) fn describe_metrics() {
    describe_counter!("ovation_expired_votes_total", "Votes that expired from a store because of its retention");
    describe_counter!("ovation_retention_failures_total", "Attempts to expire votes from a store that failed");
}

pub(super) fn count_expired(store: &'static str, votes: u64) {
    counter!("ovation_expired_votes_total", "store" => store).increment(votes);
}

/// The failures since the votes of a store, or of one of its partitions, last expired.
#[derive(Clone, Default)]
pub(super) struct Failures(Arc<Mutex<BTreeMap<FailureKey, String>>>);

/// The store, and the partition if the failure concerns only one.
type FailureKey = (&'static str, Option<Partition>);

impl Failures {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<FailureKey, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, key: FailureKey, error: &StoreError) {
        let (store, partition) = key;
        counter!("ovation_retention_failures_total", "store" => store).increment(1);
        let partition = partition.map(tracing::field::display);
        tracing::warn!(store, partition, %error, retry_in = ?RETRY_DELAY, "could not expire votes");
        self.lock().insert(key, error.to_string());
    }

    pub(super) fn clear(&self, key: FailureKey) {
        self.lock().remove(&key);
    }

    fn problem(&self) -> Option<String> {
        let failures = self.lock();
        let ((store, _), error) = failures.first_key_value()?;
        Some(format!("votes do not expire from the {store}, which grows meanwhile: {error}"))
    }
}
