//! Counts one partition: first reconciles the ledger and the tallies, then counts one batch after another.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use service::{
    CancellationToken,
    traces::{self, Tracer},
};
use tokio::time::{Instant, sleep, timeout};
use votes::{
    Batch, Counted, Counter, Cursor, LogReader, LogState, Offset, Partition, PartitionHalt, StoreError, VoteId,
};

use crate::{
    meters::Meters,
    retention::{PartitionRetention, RetentionPolicy},
    state::PartitionState,
};

/// The maximum number of records in a batch.
const MAX_BATCH_RECORDS: usize = 1_000;

/// The first and the longest pause after a store failed. The pause doubles with each failure.
const RETRY_DELAYS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// The interval at which a partition without new records checks whether the stores are still at its cursor. So tallies
/// that were lost are rebuilt even if no vote arrives.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The pause between two steps of the retention while no votes arrive.
const EXPIRY_PAUSE: Duration = Duration::from_millis(50);

/// The interval at which a halted partition checks whether the operator has repaired it.
const RECHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The longest time for which the log may return no record although it has one. Then the partition is reconciled, and the
/// log is read again from its position.
const MAX_READ_WAIT: Duration = Duration::from_secs(10);

/// Counts a partition until `stop` is cancelled. Finishes the batch that is being counted first.
pub(crate) async fn run(
    partition: Partition,
    log_reader: Arc<dyn LogReader>,
    counter: Counter,
    (state, meters): (PartitionState, Meters),
    retention: RetentionPolicy,
    stop: CancellationToken,
) {
    let mut counting = PartitionCounting {
        partition,
        log_reader,
        counter,
        state,
        meters,
        tracer: traces::tracer(),
        retention: PartitionRetention::new(partition, retention),
        dead_letters_sent: Offset(0),
        delay: RetryDelay::default(),
    };
    loop {
        let pause = match counting.run_until_interrupted(&stop).await {
            Ok(Interruption::Stop) => return,
            Ok(Interruption::PositionsChanged) => {
                counting.meters.record_reconciliation();
                tracing::info!(%partition, "stores moved, reconciling");
                // The first time in a row, there is no pause, so that tallies that were lost are back soon.
                counting.delay.next_after_first()
            }
            Ok(Interruption::Halt(halt)) => {
                tracing::error!(%partition, reason = %halt, "partition stopped");
                counting.state.set_error(halt.to_string(), true);
                counting.delay.reset();
                // The operator may repair the partition with another log.
                counting.dead_letters_sent = Offset(0);
                RECHECK_INTERVAL
            }
            Err(error) => {
                let pause = counting.delay.next();
                tracing::warn!(%partition, %error, retry_in = ?pause, "counting paused");
                counting.state.set_error(error.to_string(), false);
                pause
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// The pauses after a store has failed, or was not at the position of the partition. The pause doubles each time, until
/// the partition is counted again. So a partition that two consumers hold does not load the stores.
#[derive(Default)]
struct RetryDelay {
    /// The number of pauses in a row.
    count: u32,
}

impl RetryDelay {
    /// Returns the next pause.
    fn next(&mut self) -> Duration {
        self.count += 1;
        let doublings = (self.count - 1).min(16);
        (*RETRY_DELAYS.start() * 2_u32.pow(doublings)).min(*RETRY_DELAYS.end())
    }

    /// Returns the next pause, or no pause the first time in a row.
    fn next_after_first(&mut self) -> Duration {
        if self.count > 0 {
            return self.next();
        }
        self.count = 1;
        Duration::ZERO
    }

    /// The partition is counted again.
    fn reset(&mut self) {
        self.count = 0;
    }
}

/// Why the counting of a partition was interrupted.
enum Interruption {
    /// The stop token was cancelled.
    Stop,
    /// A store was not at the expected position. The partition must be reconciled.
    PositionsChanged,
    /// An operator must repair the partition.
    Halt(PartitionHalt),
}

/// The counting of one partition.
struct PartitionCounting {
    partition: Partition,
    log_reader: Arc<dyn LogReader>,
    counter: Counter,
    state: PartitionState,
    meters: Meters,
    tracer: Option<Tracer>,
    retention: PartitionRetention,
    /// The invalid records below this offset are among the dead letters. If a batch is counted again, they are not sent
    /// again.
    dead_letters_sent: Offset,
    delay: RetryDelay,
}

impl PartitionCounting {
    /// Reconciles the stores, then counts batches until it is interrupted.
    async fn run_until_interrupted(&mut self, stop: &CancellationToken) -> Result<Interruption, StoreError> {
        // A reconciliation may be dropped at any time: each of its steps is complete, and the next one continues.
        let reconciled = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Interruption::Stop),
            reconciled = self.reconcile() => reconciled?,
        };
        let mut cursor = match reconciled {
            Ok(cursor) => cursor,
            Err(halt) => return Ok(Interruption::Halt(halt)),
        };
        self.log_reader.seek(self.partition, cursor.recorded).await?;
        // A partition that this consumer has taken over may get no vote for long. Without this report, its lag would be
        // measured from an older position.
        self.log_reader.commit(self.partition, cursor.recorded).await?;
        self.state.begin(cursor.recorded);
        self.retention.restart();
        let mut do_votes_wait = false;
        loop {
            // Without new votes, work of the retention that is not finished continues at once.
            let continues = !do_votes_wait && self.retention.is_unfinished();
            let idle = if continues { EXPIRY_PAUSE } else { IDLE_CHECK_INTERVAL };
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Interruption::Stop),
                batch = self.log_reader.next_batch(self.partition, MAX_BATCH_RECORDS) => Some(batch?),
                () = sleep(idle) => None,
            };
            let Some(batch) = batch else {
                // This may be dropped at any time, too.
                let checked = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(Interruption::Stop),
                    checked = self.check_while_idle(cursor) => checked?,
                };
                let Some(checked) = checked else { return Ok(Interruption::PositionsChanged) };
                (cursor, do_votes_wait) = checked;
                self.delay.reset();
                continue;
            };
            if let Some(next_vote) = batch.records.iter().find_map(|record| record.vote.as_ref().ok()) {
                let log_time = votes::log_time(self.retention.now(), Some(next_vote.accepted_at));
                let after_expiry = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(Interruption::Stop),
                    after_expiry = self.retention.step(cursor, log_time) => after_expiry,
                };
                let Some(after_expiry) = after_expiry else { return Ok(Interruption::PositionsChanged) };
                cursor = after_expiry;
            }
            let started = Instant::now();
            let (to, size) = (batch.to, batch.records.len());
            self.send_to_dead_letters(&batch).await?;
            let span = self.tracer.as_ref().and_then(|tracer| tracer.start_batch_span(&batch));
            let outcome = self.counter.count(cursor, batch).await;
            if let Some(span) = span {
                span.end(&outcome);
            }
            match outcome? {
                Counted::Done { cursor: after_batch, votes, duplicates } => {
                    let age = self.meters.record_batch(size, started.elapsed(), &votes, duplicates);
                    self.state.advance(to, age);
                    self.delay.reset();
                    (cursor, do_votes_wait) = (after_batch, false);
                }
                Counted::PositionsChanged => return Ok(Interruption::PositionsChanged),
            }
            self.log_reader.commit(self.partition, to).await?;
        }
    }

    /// Checks that the stores are still at the cursor, and expires votes if the partition is counted to its end. Returns
    /// the new cursor and whether votes wait on the log, or `None` if a store is not at the cursor.
    ///
    /// # Errors
    /// Also if records wait, but the log has returned none for [`MAX_READ_WAIT`].
    async fn check_while_idle(&mut self, cursor: Cursor) -> Result<Option<(Cursor, bool)>, StoreError> {
        if let Some(records) = self.state.waiting_for(MAX_READ_WAIT) {
            let problem = format!("no records for {MAX_READ_WAIT:?}, but {records} wait; reading again");
            return Err(StoreError::new("vote log", problem));
        }
        if !self.retention.is_limited() {
            return Ok(self.counter.is_at(self.partition, cursor).await?.then_some((cursor, false)));
        }
        // The clock is read before the end of the log, see `log_time`.
        let log_time = votes::log_time(self.retention.now(), None);
        let do_votes_wait = self.log_reader.bounds(self.partition).await?.end > cursor.recorded;
        if !self.counter.is_at(self.partition, cursor).await? {
            return Ok(None);
        }
        if do_votes_wait {
            return Ok(Some((cursor, true)));
        }
        Ok(self.retention.step(cursor, log_time).await.map(|cursor| (cursor, false)))
    }

    /// Reconciles the stores. Returns the cursor from which to count, or the reason why the partition must halt.
    async fn reconcile(&self) -> Result<Result<Cursor, PartitionHalt>, StoreError> {
        let positions = self.counter.positions(self.partition).await?;
        if let Some(records) = positions.records_to_recount() {
            let partition = self.partition;
            self.state.set_error(
                format!("partition {partition}: the tallies lost data; {records} records are counted again"),
                false,
            );
        }
        let bounds = self.log_reader.bounds(self.partition).await?;
        let mut votes = BTreeMap::new();
        for offset in positions.offsets_to_verify(bounds) {
            votes.extend(self.vote_at(offset).await?.map(|id| (offset, id)));
        }
        self.counter.reconcile(self.partition, positions, LogState { bounds, votes }).await
    }

    /// Reads the id of the vote at this offset, which the log has. Returns `None` if the record is no vote.
    async fn vote_at(&self, offset: Offset) -> Result<Option<VoteId>, StoreError> {
        self.log_reader.seek(self.partition, offset).await?;
        let batch = timeout(MAX_READ_WAIT, self.log_reader.next_batch(self.partition, 1)).await;
        let batch = batch.map_err(|_| {
            let problem = format!("the record at offset {offset} did not arrive within {MAX_READ_WAIT:?}");
            StoreError::new("vote log", problem)
        })??;
        let record = batch.records.into_iter().find(|record| record.offset == offset);
        Ok(record.and_then(|record| record.vote.ok()).map(|vote| vote.vote_id))
    }

    /// Sends the invalid records of a batch to the dead letters, unless this task has sent them before. Call this before
    /// the batch is counted, so that the records are stored before the checkpoint moves past them.
    async fn send_to_dead_letters(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut letters = batch.dead_letters();
        letters.retain(|letter| letter.position.offset >= self.dead_letters_sent);
        let Some(last) = letters.last() else { return Ok(()) };
        let sent_below = last.position.offset.next();
        self.log_reader.send_to_dead_letters(&letters).await?;
        self.dead_letters_sent = sent_below;
        self.meters.record_dead_letters(letters.len());
        for letter in &letters {
            tracing::warn!(position = %letter.position, reason = letter.invalid.reason, "invalid record sent to the dead letters");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_until_the_partition_is_counted_again() {
        let mut delay = RetryDelay::default();
        let pauses: Vec<u128> = (0..8).map(|_| delay.next().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        delay.reset();
        assert_eq!(delay.next(), *RETRY_DELAYS.start());
    }

    #[test]
    fn only_the_first_reconciliation_in_a_row_has_no_pause() {
        let mut delay = RetryDelay::default();
        let pauses: Vec<u128> = (0..3).map(|_| delay.next_after_first().as_millis()).collect();
        assert_eq!(pauses, [0, 200, 400]);
    }
}
