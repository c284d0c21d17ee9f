//! The vote log: `log.db`.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures_channel::oneshot;
use metrics::Gauge;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep},
};
use votes::{
    Assignment, Batch, Bounds, DeadLetter, Facts, Offset, Partition, PendingReceipt, Place, Poison, PublishError,
    Receipt, ReceiptSender, Record, Retention, Store, StoreError, UnixMillis, Vote, VoteFeed, VoteQueue,
    receipt_channel,
};

use super::{
    database::{Database, Readers, Schema, used_bytes},
    writer::{NotQueued, Sink, Writer},
};
use crate::{OpenError, meters, record};

pub(super) const SCHEMA: Schema = Schema { file: "log.db", application_id: 0x4F56_4C47, sql: include_str!("log.sql") };

/// Batches of all partitions end at the same moments, this far apart, so that their writes share transactions. A lone vote is
/// counted after half of this, on average, and three commits.
const BEAT: Duration = Duration::from_millis(50);

/// Records that are deleted in one transaction.
const EXPIRE_CHUNK: u64 = 2_000;

/// How often a reader in another process looks whether the log has grown.
const POLL: Duration = Duration::from_millis(50);

/// The log of one folder.
pub(crate) struct Log {
    readers: Arc<Readers>,
    ends: Arc<Ends>,
    writer: Option<Writer<Job>>,
    /// Votes that wait to be written.
    waiting: Gauge,
}

/// The end of each partition, and word of its moving.
struct Ends {
    offsets: Vec<AtomicU64>,
    /// The first offset of each partition that has not expired.
    starts: Vec<AtomicU64>,
    moved: watch::Sender<()>,
}

impl Log {
    pub(super) fn writable(database: &Database, queue_votes: usize) -> Result<Self, OpenError> {
        let mut log = Self::read_only(database.readers())?;
        let sink = LogSink { next: log.ends.load(), written: Vec::new(), ends: Arc::clone(&log.ends) };
        log.writer = Some(Writer::start("log", database, sink, queue_votes)?);
        log.waiting = meters::queue(queue_votes);
        Ok(log)
    }

    pub(super) fn read_only(readers: Arc<Readers>) -> Result<Self, OpenError> {
        let bounds = readers.read_now(read_all_bounds).map_err(|error| OpenError::new("log.db", error))?;
        let offsets = bounds.iter().map(|bounds| AtomicU64::new(bounds.end.0)).collect();
        let starts = bounds.iter().map(|bounds| AtomicU64::new(bounds.start.0)).collect();
        let ends = Arc::new(Ends { offsets, starts, moved: watch::Sender::new(()) });
        Ok(Self { readers, ends, writer: None, waiting: Gauge::noop() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.load().iter().all(|end| *end == 0)
    }

    fn count_partitions(&self) -> u16 {
        u16::try_from(self.ends.offsets.len()).expect("the number of partitions was read as a u16")
    }

    fn writer(&self) -> Result<&Writer<Job>, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::new("log.db", "opened for reading only"))
    }

    async fn write(&self, job: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Job) -> Result<(), StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.writer()?.queue(job(reply)).map_err(|problem| match problem {
            NotQueued::Full => StoreError::new("log.db", "the queue is full"),
            NotQueued::Stopped => StoreError::new("log.db", "the writing thread has ended"),
        })?;
        let outcome = outcome.await.unwrap_or_else(|_| Err("the writing thread has ended".to_owned()));
        outcome.map_err(|problem| StoreError::new("log.db", problem))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match &self.writer {
            Some(_) => self.write(Job::Ping).await,
            None => self.readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await,
        }
    }

    /// It is written where a log begins, so a record that is missing is a loss.
    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        match &self.writer {
            Some(_) => {
                Ok(Bounds { start: Offset(self.ends.start_of(partition)), end: Offset(self.ends.of(partition)) })
            }
            None => self.readers.read(move |db| read_bounds(db, partition)).await,
        }
    }

    /// Lets go of the records below `to`, some at a time: votes that come meanwhile wait for each.
    async fn expire_to(&self, partition: Partition, to: u64) -> Result<u64, StoreError> {
        let start = self.bounds(partition).await?.start.0;
        let mut from = start;
        while from < to {
            from = (from + EXPIRE_CHUNK).min(to);
            self.write(|reply| Job::Expire { partition, to: from, reply }).await?;
            self.ends.starts[usize::from(partition.0)].store(from, Ordering::Release);
        }
        Ok(from - start)
    }

    /// Waits until the partition reaches past `at`.
    async fn reaches_past(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        if self.writer.is_none() {
            while self.bounds(partition).await?.end <= at {
                sleep(POLL).await;
            }
            return Ok(());
        }
        let mut moved = self.ends.moved.subscribe();
        while self.ends.of(partition) <= at.0 {
            moved.changed().await.map_err(|error| StoreError::new("log.db", error))?;
        }
        Ok(())
    }
}

impl Ends {
    fn load(&self) -> Vec<u64> {
        self.offsets.iter().map(|end| end.load(Ordering::Acquire)).collect()
    }

    fn start_of(&self, partition: Partition) -> u64 {
        self.starts.get(usize::from(partition.0)).map_or(0, |start| start.load(Ordering::Acquire))
    }

    fn of(&self, partition: Partition) -> u64 {
        self.offsets.get(usize::from(partition.0)).map_or(0, |end| end.load(Ordering::Acquire))
    }
}

fn read_all_bounds(db: &Connection) -> rusqlite::Result<Vec<Bounds>> {
    let partitions: u16 = db.query_row("SELECT value FROM meta WHERE key = 'partitions'", [], |row| row.get(0))?;
    (0..partitions).map(|partition| read_bounds(db, Partition(partition))).collect()
}

/// Two look-ups in keys.
fn read_bounds(db: &Connection, partition: Partition) -> rusqlite::Result<Bounds> {
    let sql = r#"SELECT "offset" FROM starts WHERE partition = ?1"#;
    let start = db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0)).optional()?.unwrap_or(0);
    let sql = r#"SELECT max("offset") FROM records WHERE partition = ?1"#;
    let last: Option<u64> = db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0))?;
    Ok(Bounds { start: Offset(start), end: Offset(last.map_or(start, |last| last + 1)) })
}

/// The first record that was accepted at or after a time.
fn first_since(db: &Connection, partition: Partition, from: u64, time: UnixMillis) -> rusqlite::Result<Option<u64>> {
    let sql = r#"SELECT "offset" FROM records WHERE partition = ?1 AND "offset" >= ?2 AND accepted_at >= ?3
        ORDER BY "offset" LIMIT 1"#;
    db.prepare_cached(sql)?.query_row(params![partition.0, from, time.0], |row| row.get(0)).optional()
}

/// What the writing thread does.
enum Job {
    Publish(Publish),
    Bury {
        dead: Vec<DeadLetter>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Deletes the records below an offset.
    Expire {
        partition: Partition,
        to: u64,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Writes a little and waits for the disk, to know that it works; and, being last in the queue, to flush it.
    Ping(oneshot::Sender<Result<(), String>>),
}

struct Publish {
    partition: Partition,
    accepted_at: UnixMillis,
    key: votes::BallotKey,
    value: Vec<u8>,
    traceparent: Option<votes::TraceParent>,
    /// Given when it is written.
    offset: Offset,
    reply: ReceiptSender,
    _waiting: Waiting,
}

/// A vote that waits is counted until this is dropped.
struct Waiting(Gauge);

impl Waiting {
    fn count(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

struct LogSink {
    /// The next offset of each partition, after all that is committed.
    next: Vec<u64>,
    /// The same after what was written last.
    written: Vec<u64>,
    ends: Arc<Ends>,
}

impl Sink for LogSink {
    type Job = Job;

    fn write(&mut self, db: &Connection, jobs: &mut [Job]) -> rusqlite::Result<()> {
        self.written.clone_from(&self.next);
        let mut insert = db.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for job in jobs {
            match job {
                Job::Publish(vote) => {
                    let next = &mut self.written[usize::from(vote.partition.0)];
                    vote.offset = Offset(*next);
                    let traceparent = vote.traceparent.as_ref().map(votes::TraceParent::as_str);
                    let (key, time) = (vote.key.as_str(), vote.accepted_at.0);
                    insert.execute(params![vote.partition.0, *next, time, key, vote.value, traceparent])?;
                    *next += 1;
                }
                Job::Bury { dead, .. } => {
                    let mut bury = db.prepare_cached("INSERT OR IGNORE INTO dead VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                    for DeadLetter { place, accepted_at, poison } in &*dead {
                        let Poison { reason, key, value } = poison;
                        bury.execute(params![place.partition.0, place.offset.0, accepted_at.0, key, value, reason])?;
                    }
                }
                Job::Expire { partition, to, .. } => {
                    let begin = "INSERT OR REPLACE INTO starts VALUES (?1, ?2)";
                    db.prepare_cached(begin)?.execute(params![partition.0, *to])?;
                    let delete = r#"DELETE FROM records WHERE partition = ?1 AND "offset" < ?2"#;
                    db.prepare_cached(delete)?.execute(params![partition.0, *to])?;
                }
                Job::Ping(_) => {
                    let mut touch = db.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('checked_at', ?1)")?;
                    touch.execute([UnixMillis::now().0])?;
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self) {
        std::mem::swap(&mut self.next, &mut self.written);
        for (end, next) in self.ends.offsets.iter().zip(&self.next) {
            end.store(*next, Ordering::Release);
        }
        self.ends.moved.send_replace(());
    }

    fn settle(job: Job, outcome: Result<(), String>) {
        // Whoever no longer listens has lost interest, not the vote.
        match job {
            Job::Publish(vote) => {
                let place = Place { partition: vote.partition, offset: vote.offset };
                let receipt = outcome.map(|()| Receipt { place, accepted_at: vote.accepted_at }).map_err(|problem| {
                    PublishError::Unavailable(format!("the vote log could not be written: {problem}"))
                });
                let _ = vote.reply.send(receipt);
            }
            Job::Bury { reply, .. } | Job::Expire { reply, .. } | Job::Ping(reply) => {
                let _ = reply.send(outcome);
            }
        }
    }
}

#[async_trait]
impl Store for Log {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.ping().await.map(|()| Facts::new())
    }
}

#[async_trait]
impl VoteQueue for Log {
    fn partitions(&self) -> u16 {
        self.count_partitions()
    }

    fn publish(&self, partition: Partition, vote: Vote) -> Result<PendingReceipt, PublishError> {
        let writer = self.writer().map_err(|error| PublishError::Unavailable(error.to_string()))?;
        let (reply, receipt) = receipt_channel();
        let value = record::encode(&vote);
        let Vote { accepted_at, key, traceparent, .. } = vote;
        let waiting = Waiting::count(&self.waiting);
        let job =
            Publish { partition, accepted_at, key, value, traceparent, offset: Offset(0), reply, _waiting: waiting };
        match writer.queue(Job::Publish(job)) {
            Ok(()) => Ok(receipt),
            Err(NotQueued::Full) => Err(PublishError::Full),
            Err(NotQueued::Stopped) => Err(PublishError::Unavailable("the vote log's writing thread has ended".into())),
        }
    }

    async fn flush(&self) {
        if let Err(error) = self.ping().await {
            tracing::error!(%error, "flushing the vote log failed");
        }
    }
}

/// A reader of the log, with a position in each partition. It has all partitions from the start.
pub(super) struct Feed {
    log: Arc<Log>,
    positions: Mutex<Vec<Offset>>,
    is_assigned: Mutex<bool>,
    epoch: Instant,
}

impl Feed {
    pub(super) fn new(log: Arc<Log>) -> Self {
        let positions = vec![Offset(0); log.ends.offsets.len()];
        Self { log, positions: Mutex::new(positions), is_assigned: Mutex::new(false), epoch: Instant::now() }
    }

    fn position(&self, partition: Partition) -> Offset {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(partition.0)]
    }

    fn set_position(&self, partition: Partition, at: Offset) {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(partition.0)] = at;
    }
}

#[async_trait]
impl Store for Feed {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.log.check().await
    }
}

#[async_trait]
impl VoteFeed for Feed {
    fn partitions(&self) -> u16 {
        self.log.count_partitions()
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        let was_assigned = {
            let mut is_assigned = self.is_assigned.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *is_assigned, true)
        };
        if was_assigned {
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

    async fn next_batch(&self, partition: Partition, most: usize) -> Result<Batch, StoreError> {
        let from = self.position(partition);
        self.log.reaches_past(partition, from).await?;
        let is_full = || self.log.ends.of(partition) >= from.0 + most as u64;
        if self.log.writer.is_some() && !is_full() {
            // A plain wait: being woken by each commit of any partition would cost more than it gains.
            sleep(until_next_beat(self.epoch.elapsed())).await;
        }
        let records = self.log.readers.read(move |db| read_records(db, partition, from, most)).await?;
        let to = records.last().map_or(from, |record| record.offset.next());
        self.set_position(partition, to);
        Ok(Batch { partition, from, to, records })
    }

    async fn commit(&self, _: Partition, _: Offset) -> Result<(), StoreError> {
        Ok(())
    }

    async fn expire(&self, partition: Partition, retention: Retention, counted: Offset) -> Result<u64, StoreError> {
        let log = &self.log;
        let Bounds { start, end } = log.bounds(partition).await?;
        let most = counted.0.min(end.0);
        let to = match retention {
            Retention::Age(age) => {
                let since = Retention::since(age);
                let first = log.readers.read(move |db| first_since(db, partition, start.0, since)).await?;
                first.unwrap_or(most)
            }
            Retention::Bytes(bytes) => {
                let used = log.readers.read(used_bytes).await? as f64;
                Retention::kept(bytes, used, end.0 - start.0).map_or(0, |kept| end.0 - kept)
            }
        };
        log.expire_to(partition, to.min(most)).await
    }

    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError> {
        let dead = dead.to_vec();
        self.log.write(|reply| Job::Bury { dead, reply }).await
    }

    async fn dead(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<DeadLetter>, StoreError> {
        let sql = r#"SELECT "offset", accepted_at, key, value, reason FROM dead
            WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3 ORDER BY "offset""#;
        self.log
            .readers
            .read(move |db| {
                let mut query = db.prepare_cached(sql)?;
                let letters = query.query_map(params![partition.0, from.0, to.0], |row| {
                    let place = Place { partition, offset: Offset(row.get(0)?) };
                    let poison = Poison { key: row.get(2)?, value: row.get(3)?, reason: row.get(4)? };
                    Ok(DeadLetter { place, accepted_at: UnixMillis(row.get(1)?), poison })
                })?;
                letters.collect()
            })
            .await
    }
}

fn until_next_beat(elapsed: Duration) -> Duration {
    let (beat, elapsed) = (BEAT.as_micros(), elapsed.as_micros());
    Duration::from_micros(u64::try_from(beat - elapsed % beat).unwrap_or_default())
}

fn read_records(db: &Connection, partition: Partition, from: Offset, most: usize) -> rusqlite::Result<Vec<Record>> {
    let sql = r#"SELECT "offset", accepted_at, key, value, traceparent FROM records
        WHERE partition = ?1 AND "offset" >= ?2 ORDER BY "offset" LIMIT ?3"#;
    let mut query = db.prepare_cached(sql)?;
    let records = query.query_map(params![partition.0, from.0, most], |row| {
        let accepted_at = UnixMillis(row.get(1)?);
        let (key, value) = (row.get_ref(2)?.as_bytes()?, row.get_ref(3)?.as_blob()?);
        let traceparent = row.get_ref(4)?.as_str_or_null()?;
        let vote = record::decode(key, accepted_at, value, traceparent);
        Ok(Record { offset: Offset(row.get(0)?), accepted_at, vote })
    })?;
    records.collect()
}
