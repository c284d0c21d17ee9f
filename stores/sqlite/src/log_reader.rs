//! The port `LogReader`, for the process that writes the log and for processes that only read it.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use log_record::NewerRecord;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::{Duration, Instant, sleep};
use votes::{
    Assignment, Batch, Bounds, DeadLetter, DeadLetterPart, DeadLetterReader, HealthDetails, InvalidRecord, LogPosition,
    LogReader, Offset, Partition, Record, Retention, Store, StoreError, UnixMillis,
};

use crate::{
    database::used_bytes,
    log::{Log, LogOp},
};

/// The time between the ends of batches. The batches of all partitions end at the same times, so that the writes for
/// them share transactions. A vote that arrives alone waits for half of this time on average.
const BATCH_INTERVAL: Duration = Duration::from_millis(50);

/// The bytes of dead letters that are read together. The last one of them may exceed this number.
const MAX_PART_BYTES: usize = 1_000_000;

/// The estimated bytes in memory of a dead letter in addition to its texts.
const DEAD_LETTER_OVERHEAD: usize = 150;

/// A reader of all partitions of the log, with a position in each partition.
pub(super) struct EmbeddedLogReader {
    log: Arc<Log>,
    positions: Mutex<Vec<Offset>>,
    /// Whether the only assignment was returned: all partitions.
    has_returned_assignment: Mutex<bool>,
    /// The time from which the multiples of [`BATCH_INTERVAL`] are counted.
    epoch: Instant,
}

impl EmbeddedLogReader {
    pub(super) fn new(log: Arc<Log>) -> Self {
        let positions = vec![Offset(0); usize::from(log.count_partitions())];
        let has_returned_assignment = Mutex::new(false);
        Self { log, positions: Mutex::new(positions), has_returned_assignment, epoch: Instant::now() }
    }

    fn position(&self, partition: Partition) -> Offset {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(partition.0)]
    }

    fn set_position(&self, partition: Partition, at: Offset) {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(partition.0)] = at;
    }
}

#[async_trait]
impl Store for EmbeddedLogReader {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.log.check().await
    }
}

#[async_trait]
impl LogReader for EmbeddedLogReader {
    fn partitions(&self) -> u16 {
        self.log.count_partitions()
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        let has_returned = {
            let mut has_returned = self.has_returned_assignment.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *has_returned, true)
        };
        if has_returned {
            std::future::pending::<()>().await;
        }
        Ok(Assignment::Assigned((0..self.partitions()).map(Partition).collect()))
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.log.bounds(partition).await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        self.set_position(partition, at);
        Ok(())
    }

    async fn next_batch(&self, partition: Partition, max: usize) -> Result<Batch, StoreError> {
        let from = self.position(partition);
        self.log.wait_for_record(partition, from).await?;
        let is_full = || self.log.bounds.end_of(partition) >= from.0 + max as u64;
        if self.log.writer.is_some() && !is_full() {
            // Sleep for the whole time, also if the batch is full before: waking for each commit would cost more.
            sleep(until_batch_end(self.epoch.elapsed())).await;
        }
        let records = self.log.readers.read(move |db| read_records(db, partition, from, max)).await?;
        let too_new =
            |error| StoreError::new("vote log", format_args!("partition {partition}, offset {from}: {error}"));
        let records = records.map_err(too_new)?;
        let to = records.last().map_or(from, |record| record.offset.next());
        self.set_position(partition, to);
        Ok(Batch { partition, from, to, records })
    }

    async fn commit(&self, _: Partition, _: Offset) -> Result<(), StoreError> {
        Ok(())
    }

    async fn expire(
        &self,
        counted: &[(Partition, Offset)],
        retention: Retention,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let log = &self.log;
        // The size is measured once, so that every partition retains the same share of its records.
        let used = match retention {
            Retention::Age(_) => 0.0,
            Retention::Bytes(_) => log.readers.read(used_bytes).await? as f64,
        };
        let mut expired = 0;
        for &(partition, counted) in counted {
            let Bounds { start, end } = log.bounds(partition).await?;
            let max = counted.0.min(end.0);
            let to = match retention {
                Retention::Age(age) => {
                    let since = now.before(age);
                    let first = log.readers.read(move |db| first_since(db, partition, (start.0, max), since)).await?;
                    first.unwrap_or(max)
                }
                Retention::Bytes(bytes) => {
                    Retention::records_to_retain(bytes, used, end.0 - start.0).map_or(0, |retained| end.0 - retained)
                }
            };
            expired += log.expire_to(partition, to.min(max)).await?;
        }
        Ok(expired)
    }

    async fn send_to_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
        let dead_letters = dead_letters.to_vec();
        self.log.write(|reply| LogOp::SendToDeadLetters { dead_letters, reply }).await
    }

    async fn dead_letters(&self, partition: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError> {
        Ok(Box::new(EmbeddedDeadLetters { log: Arc::clone(&self.log), partition, next: Offset(0) }))
    }
}

/// A reader of the dead letters of one partition.
struct EmbeddedDeadLetters {
    log: Arc<Log>,
    partition: Partition,
    /// The first offset that was not read yet.
    next: Offset,
}

#[async_trait]
impl DeadLetterReader for EmbeddedDeadLetters {
    async fn next_part(&mut self) -> Result<Option<DeadLetterPart>, StoreError> {
        let (partition, from) = (self.partition, self.next);
        let letters = self.log.readers.read(move |db| read_dead_letters(db, partition, from)).await?;
        let Some(last) = letters.last() else { return Ok(None) };
        self.next = last.position.offset.next();
        Ok(Some(DeadLetterPart { letters, foreign: Vec::new() }))
    }
}

/// Reads the dead letters at or after an offset, until they have [`MAX_PART_BYTES`].
fn read_dead_letters(db: &Connection, partition: Partition, from: Offset) -> rusqlite::Result<Vec<DeadLetter>> {
    let sql = r#"SELECT "offset", accepted_at, key, value, reason FROM dead_letters
        WHERE partition = ?1 AND "offset" >= ?2 ORDER BY "offset""#;
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![partition.0, from.0])?;
    let (mut letters, mut bytes) = (Vec::new(), 0);
    while bytes < MAX_PART_BYTES
        && let Some(row) = rows.next()?
    {
        let position = LogPosition { partition, offset: Offset(row.get(0)?) };
        let invalid = InvalidRecord { key: row.get(2)?, value: row.get(3)?, reason: row.get(4)? };
        bytes += DEAD_LETTER_OVERHEAD + invalid.key.len() + invalid.value.len() + invalid.reason.len();
        letters.push(DeadLetter::whole(position, UnixMillis(row.get(1)?), invalid));
    }
    Ok(letters)
}

/// Returns the time until the next end of batches, at a time `elapsed` after the epoch.
fn until_batch_end(elapsed: Duration) -> Duration {
    let (interval, elapsed) = (BATCH_INTERVAL.as_micros(), elapsed.as_micros());
    Duration::from_micros(u64::try_from(interval - elapsed % interval).unwrap_or_default())
}

/// Reads at most `max` records, up to the first record that a newer release wrote. Returns the inner error if that
/// record is the first one.
fn read_records(
    db: &Connection,
    partition: Partition,
    from: Offset,
    max: usize,
) -> rusqlite::Result<Result<Vec<Record>, NewerRecord>> {
    let sql = r#"SELECT "offset", accepted_at, key, value, traceparent FROM records
        WHERE partition = ?1 AND "offset" >= ?2 ORDER BY "offset" LIMIT ?3"#;
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![partition.0, from.0, max])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let accepted_at = UnixMillis(row.get(1)?);
        let (key, value) = (row.get_ref(2)?.as_bytes()?, row.get_ref(3)?.as_blob()?);
        let traceparent = row.get_ref(4)?.as_str_or_null()?;
        match log_record::decode(key, accepted_at, value, traceparent) {
            Ok(vote) => records.push(Record { offset: Offset(row.get(0)?), accepted_at, vote }),
            Err(newer) if records.is_empty() => return Ok(Err(newer)),
            Err(_) => break,
        }
    }
    Ok(Ok(records))
}

/// Returns the offset of the first record with an offset in `[from, to)` that was accepted at `time` or later. Reads no
/// further record, so it reads only what expires.
fn first_since(
    db: &Connection,
    partition: Partition,
    (from, to): (u64, u64),
    time: UnixMillis,
) -> rusqlite::Result<Option<u64>> {
    let sql = r#"SELECT "offset" FROM records
        WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3 AND accepted_at >= ?4
        ORDER BY "offset" LIMIT 1"#;
    db.prepare_cached(sql)?.query_row(params![partition.0, from, to, time.0], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use votes::conformance::{vote, vote_id};

    use super::*;
    use crate::log::SCHEMA;

    /// Returns a log of three votes. The last vote has the version of a newer release.
    fn log_with_newer_record() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(SCHEMA.sql).unwrap();
        for n in 0..3 {
            let mut value = log_record::encode(&vote(n));
            if n == 2 {
                // Append field 9, the version, again with the value 2. In protobuf the last value of a field is valid.
                value.extend([9 << 3, 2]);
            }
            let sql = "INSERT INTO records VALUES (0, ?1, 0, ?2, ?3, NULL)";
            db.execute(sql, params![n, vote(n).key.as_str(), value]).unwrap();
        }
        db
    }

    #[test]
    fn a_record_of_a_newer_release_ends_the_batch_before_it_and_fails_the_next_batch() {
        let db = log_with_newer_record();
        let before = read_records(&db, Partition(0), Offset(0), 10).unwrap().unwrap();
        let ids: Vec<_> = before.into_iter().map(|record| record.vote.unwrap().vote_id).collect();
        assert_eq!(ids, [vote_id(0), vote_id(1)]);
        let newer = read_records(&db, Partition(0), Offset(2), 10).unwrap().unwrap_err();
        assert!(newer.to_string().contains("upgrade this program"), "{newer}");
    }
}
