//! Retention: expires counted votes from the ledger and the vote log.

use std::{sync::Arc, time::Duration};

use metrics::{counter, describe_counter};
use tokio::{sync::Mutex, time::Instant};
use votes::{Cursor, CutOff, Expiry, LedgerRetention, LogReader, Partition, Retention, StoreError, Tallies};

/// The interval at which a partition checks whether votes have to expire.
const RETENTION_INTERVAL: Duration = Duration::from_millis(500);

/// The pause before the next check after a store failed.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Votes of the ledger expire when the oldest vote exceeds the retention by the retention divided by this number. So
/// votes expire rarely, and many at a time. This matters because an audit restarts whenever votes expire.
const EXCESS_AGE_DIVISOR: u32 = 20;

/// How many counted votes the vote log and the ledger retain.
#[derive(Clone, Default)]
pub struct RetentionPolicy {
    log: Option<Retention>,
    ledger: Option<(Retention, Arc<CachedLedgerSize>, Expiry)>,
}

/// The ledger and its cached size. All partitions share the cached size, because measuring it is expensive.
struct CachedLedgerSize {
    store: Arc<dyn LedgerRetention>,
    size: Mutex<Option<(Instant, u64)>>,
}

impl RetentionPolicy {
    /// Creates a policy from the retention of the vote log and that of the ledger. `None` retains all votes.
    pub fn new(
        log: Option<Retention>,
        ledger: Option<Retention>,
        store: &Arc<dyn LedgerRetention>,
        tallies: &Arc<dyn Tallies>,
    ) -> Self {
        let cached = || Arc::new(CachedLedgerSize { store: Arc::clone(store), size: Mutex::default() });
        let expiry = || Expiry::new(Arc::clone(store), Arc::clone(tallies));
        Self { log, ledger: ledger.map(|retention| (retention, cached(), expiry())) }
    }
}

impl CachedLedgerSize {
    /// Returns the size in bytes. It was measured at most [`RETENTION_INTERVAL`] ago.
    async fn size(&self) -> Result<u64, StoreError> {
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
}

/// Expires the votes of one partition.
pub(crate) struct RetentionTask {
    partition: Partition,
    policy: RetentionPolicy,
    next_check: Instant,
}

impl RetentionTask {
    pub(crate) fn new(partition: Partition, policy: RetentionPolicy) -> Self {
        describe_counter!("ovation_expired_votes_total", "Votes that expired from a store because of its retention");
        Self { partition, policy, next_check: Instant::now() }
    }

    /// Expires the votes that exceed the retention, if the next check is due. Call this between batches. Returns the
    /// new cursor, or `None` if a store is not at the position in `cursor`.
    ///
    /// If a store fails, this logs the error, delays the next check, and returns the same cursor, so that counting
    /// continues. If the store has expired votes despite the error, counting the next batch finds that the cursor is
    /// wrong, and the partition is reconciled.
    pub(crate) async fn enforce(&mut self, log_reader: &dyn LogReader, cursor: Cursor) -> Option<Cursor> {
        if Instant::now() < self.next_check {
            return Some(cursor);
        }
        self.next_check = Instant::now() + RETENTION_INTERVAL;
        match self.expire(log_reader, cursor).await {
            Ok(cursor) => cursor,
            Err(error) => {
                self.next_check = Instant::now() + RETRY_DELAY;
                tracing::warn!(partition = %self.partition, %error, retry_in = ?RETRY_DELAY, "could not expire votes");
                Some(cursor)
            }
        }
    }

    async fn expire(&self, log_reader: &dyn LogReader, mut cursor: Cursor) -> Result<Option<Cursor>, StoreError> {
        if let Some((retention, ledger, expiry)) = &self.policy.ledger
            && let Some(until) = self.cut_off(ledger, *retention, cursor).await?
        {
            let Some((after, votes)) = expiry.expire(self.partition, cursor, until).await? else { return Ok(None) };
            counter!("ovation_expired_votes_total", "store" => "ledger").increment(votes);
            cursor = after;
        }
        if let Some(retention) = self.policy.log {
            // The votes below `recorded` are in the ledger, so the log needs them only if the ledger must be restored.
            let expired = log_reader.expire(self.partition, retention, cursor.recorded).await?;
            counter!("ovation_expired_votes_total", "store" => "log").increment(expired);
        }
        Ok(Some(cursor))
    }

    /// Returns the limit below which the votes of the ledger have to expire, or `None` if no vote has to.
    async fn cut_off(
        &self,
        ledger: &CachedLedgerSize,
        retention: Retention,
        Cursor { recorded, cut_off, .. }: Cursor,
    ) -> Result<Option<CutOff>, StoreError> {
        match retention {
            Retention::Age(age) => {
                let oldest = ledger.store.range(self.partition, cut_off, recorded, 1).await?;
                let limit = Retention::oldest_time(age + age / EXCESS_AGE_DIVISOR);
                let is_too_old = oldest.first().is_some_and(|logged| logged.vote.accepted_at < limit);
                Ok(is_too_old.then(|| CutOff::Time(Retention::oldest_time(age))))
            }
            Retention::Bytes(bytes) => {
                let used = ledger.size().await? as f64;
                let retained = Retention::records_to_retain(bytes, used, recorded.0.saturating_sub(cut_off.0));
                Ok(retained.map(|retained| CutOff::At(votes::Offset(recorded.0 - retained))))
            }
        }
    }
}
