//! Expires votes from the ledger: in steps, between the batches of a partition.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use votes::{Cursor, CutOff, LOG_TIME_ERROR, Offset, Partition, Retention, StoreError, UnixMillis};

use super::policy::{Failures, LEDGER, LedgerPolicy, RETENTION_INTERVAL, RETRY_DELAY, RetentionPolicy, count_expired};
use crate::state::States;

/// The time after which a step has failed, because the partition is not counted meanwhile.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a step by age may take. After a step that took longer, the next one expires half as many votes.
const TARGET_STEP_TIME: Duration = Duration::from_millis(100);

/// The maximum number of votes of a step. It is a power of two, as every number that halving it gives, and no other read
/// of the ledger has such a number. So the simulation recognises the reads of a step.
const MAX_VOTES_PER_STEP: usize = 2_048;

/// The smallest number to which slow steps lower the number of votes of a step. Smaller steps would be less efficient.
const MIN_VOTES_PER_STEP: usize = 128;

/// The time from when no vote of a partition exceeds a retention by age until the next check. Many votes then expire in
/// one step. A step for few votes costs more than these votes.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(2);

/// The interval at which all expired votes that were not deleted are searched. A consumer that was paused for long may
/// insert a vote again that was deleted.
const SEARCH_INTERVAL: Duration = Duration::from_mins(10);

/// The interval at which summaries that have grown are compacted.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(5);

/// Expires the votes of one partition.
pub(crate) struct PartitionRetention {
    partition: Partition,
    policy: RetentionPolicy,
    /// No step is executed before this time.
    next_check: Instant,
    work: Work,
    /// The time of the oldest vote that has not expired, if it is known.
    oldest: Option<UnixMillis>,
    /// The expired votes below this offset have been deleted.
    purged_to: Offset,
    /// The number of votes of the next step.
    votes_per_step: usize,
    /// When the search for expired votes that were not deleted began.
    searched_at: Instant,
}

/// What the next step has to do.
#[derive(Clone, Copy)]
enum Work {
    /// Look whether votes have to expire.
    Wait,
    /// Expire the votes that exceed a retention by age.
    ExpireOld,
    /// Expire the votes below this offset.
    ExpireBelow(Offset),
    /// Delete the votes that expired before this task began, or before the partition was reconciled.
    Purge,
}

impl PartitionRetention {
    pub(crate) fn new(partition: Partition, policy: RetentionPolicy) -> Self {
        let now = Instant::now();
        let (work, oldest, purged_to) = (Work::Purge, None, Offset(0));
        let votes_per_step = MAX_VOTES_PER_STEP;
        Self { partition, policy, next_check: now, work, oldest, purged_to, votes_per_step, searched_at: now }
    }

    /// Returns whether votes of the ledger expire.
    pub(crate) fn is_limited(&self) -> bool {
        self.policy.ledger.is_some()
    }

    /// Returns the time of the clock.
    pub(crate) fn now(&self) -> UnixMillis {
        self.policy.now()
    }

    /// Forgets what is known about the ledger. Call this when the partition was reconciled.
    pub(crate) fn restart(&mut self) {
        (self.work, self.oldest, self.purged_to, self.searched_at) = (Work::Purge, None, Offset(0), Instant::now());
    }

    /// Returns whether the next step is to be executed soon, because the step before it did not complete the work.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.policy.ledger.is_some() && !matches!(self.work, Work::Wait) && Instant::now() >= self.next_check
    }

    /// Executes a step: expires some of the votes that exceed the retention at `log_time`, the time up to which the
    /// partition is counted. Call this between batches. Returns the new cursor, or `None` if a store is not at the
    /// position in `cursor`.
    ///
    /// If a store fails, this records the failure, delays the next step, and returns the same cursor, so that counting
    /// continues. If the store has expired votes despite the error, counting the next batch finds that the cursor is
    /// wrong, and the partition is reconciled.
    pub(crate) async fn step(&mut self, cursor: Cursor, log_time: UnixMillis) -> Option<Cursor> {
        let Some(ledger) = self.policy.ledger.clone() else { return Some(cursor) };
        // After an operator has rewound the ledger, records below the cut-off are recorded again. They are purged then.
        if Instant::now() < self.next_check || cursor.recorded < cursor.cut_off {
            return Some(cursor);
        }
        // By age, one partition after another executes its steps, and the other ones count meanwhile. A size is a limit of
        // the store, so votes must expire as fast as they are counted.
        let permit = ledger.step.try_acquire();
        if permit.is_err() && matches!(ledger.retention, Retention::Age(_)) {
            return Some(cursor);
        }
        let step = timeout(STEP_TIMEOUT, self.try_step(&ledger, cursor, log_time)).await;
        let timed_out = |_| Err(StoreError::new(LEDGER, format!("a step took longer than {STEP_TIMEOUT:?}")));
        match step.unwrap_or_else(timed_out) {
            Ok(after) => {
                self.failures().clear((LEDGER, Some(self.partition)));
                after
            }
            Err(error) => {
                self.next_check = Instant::now() + RETRY_DELAY;
                self.failures().record((LEDGER, Some(self.partition)), &error);
                Some(cursor)
            }
        }
    }

    fn failures(&self) -> &Failures {
        &self.policy.failures
    }

    async fn try_step(
        &mut self,
        ledger: &LedgerPolicy,
        cursor: Cursor,
        log_time: UnixMillis,
    ) -> Result<Option<Cursor>, StoreError> {
        if matches!(self.work, Work::Wait) {
            self.work = self.find_work(ledger, cursor, log_time).await?;
        }
        let until = match (self.work, ledger.retention) {
            (Work::ExpireOld, Retention::Age(age)) => Some(CutOff::Time(oldest_to_retain(age, log_time))),
            (Work::ExpireBelow(offset), _) => Some(CutOff::At(offset)),
            (Work::Purge, _) => None,
            (Work::Wait | Work::ExpireOld, _) => return Ok(Some(cursor)),
        };
        let (started_at, max_votes) = (Instant::now(), self.votes_per_step);
        let step = ledger.expiry.step(self.partition, cursor, until, log_time, self.purged_to, max_votes).await?;
        let Some(step) = step else { return Ok(None) };
        if matches!(ledger.retention, Retention::Age(_)) {
            self.votes_per_step = next_number_of_votes(max_votes, started_at.elapsed());
        }
        if step.votes > 0 {
            count_expired(LEDGER, step.votes);
            ledger.grown().insert(self.partition);
        }
        self.purged_to = step.purged_to;
        if step.is_done {
            (self.work, self.oldest) = (Work::Wait, None);
            self.next_check = Instant::now()
                + match ledger.retention {
                    Retention::Age(_) => EXPIRY_INTERVAL,
                    // The size that was measured before is no longer true.
                    Retention::Bytes(_) => RETENTION_INTERVAL,
                };
        }
        Ok(Some(step.cursor))
    }

    /// Returns what has to be done. If votes need not expire for a while, the next check is delayed.
    async fn find_work(
        &mut self,
        ledger: &LedgerPolicy,
        Cursor { recorded, cut_off, .. }: Cursor,
        log_time: UnixMillis,
    ) -> Result<Work, StoreError> {
        if self.searched_at.elapsed() >= SEARCH_INTERVAL {
            self.restart();
            return Ok(Work::Purge);
        }
        match ledger.retention {
            Retention::Age(age) => {
                if self.oldest.is_none() {
                    let oldest = ledger.store.range(self.partition, cut_off, recorded, 1).await?;
                    self.oldest = oldest.first().map(|logged| logged.vote.accepted_at);
                }
                match self.oldest {
                    Some(oldest) if oldest < oldest_to_retain(Retention::due_age(age), log_time) => {
                        return Ok(Work::ExpireOld);
                    }
                    Some(_) => {}
                    None => self.next_check = Instant::now() + RETENTION_INTERVAL,
                }
                Ok(Work::Wait)
            }
            Retention::Bytes(bytes) => {
                self.next_check = Instant::now() + RETENTION_INTERVAL;
                let used = ledger.size().await? as f64;
                let retained = Retention::records_to_retain(bytes, used, recorded.0.saturating_sub(cut_off.0));
                let Some(retained) = retained else { return Ok(Work::Wait) };
                self.next_check = Instant::now();
                Ok(Work::ExpireBelow(Offset(recorded.0 - retained)))
            }
        }
    }
}

impl Drop for PartitionRetention {
    fn drop(&mut self) {
        self.failures().clear((LEDGER, Some(self.partition)));
    }
}

/// Returns the number of votes of a step after a step with `votes` that took this time. A slow ledger gets small steps, so
/// that its partitions are counted in between.
fn next_number_of_votes(votes: usize, time: Duration) -> usize {
    let next = if time > TARGET_STEP_TIME {
        votes / 2
    } else if time < TARGET_STEP_TIME / 2 {
        votes * 2
    } else {
        votes
    };
    next.clamp(MIN_VOTES_PER_STEP, MAX_VOTES_PER_STEP)
}

/// Returns the time before which votes exceed an age, at a time of the log.
fn oldest_to_retain(age: Duration, log_time: UnixMillis) -> UnixMillis {
    log_time.before(age + LOG_TIME_ERROR)
}

/// Compacts the summaries of the partitions that this consumer counts, one after another, until the future is dropped.
/// The partitions are counted meanwhile.
pub(crate) async fn compact_summaries(policy: RetentionPolicy, states: States) {
    let Some(ledger) = policy.ledger.clone() else { return };
    loop {
        sleep(COMPACTION_INTERVAL).await;
        let grown = std::mem::take(&mut *ledger.grown());
        let held = states.positions();
        for partition in held.into_iter().map(|(partition, _)| partition).filter(|partition| grown.contains(partition))
        {
            match ledger.store.compact_summary(partition).await {
                Ok(()) => policy.failures.clear((LEDGER, None)),
                Err(error) => {
                    policy.failures.record((LEDGER, None), &error);
                    ledger.grown().insert(partition);
                }
            }
        }
    }
}
