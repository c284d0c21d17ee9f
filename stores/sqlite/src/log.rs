//! The vote log, in `log.db`, and the port `LogWriter`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use futures_channel::oneshot;
use metrics::Gauge;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};
use votes::{
    BallotKey, Bounds, DeadLetter, DeliveryFuture, DeliverySender, HealthDetails, InvalidRecord, LogPosition,
    LogWriter, Offset, OpenError, Partition, PublishError, Receipt, Store, StoreError, TraceParent, UnixMillis, Vote,
    delivery_channel,
};

use crate::{
    database::{Database, Readers, Schema},
    writer::{NotQueued, WriteHandler, WriteQueue},
};

pub(super) const SCHEMA: Schema = Schema { file: "log.db", application_id: 0x4F56_4C47, sql: include_str!("log.sql") };

/// The maximum number of records of a partition that one transaction deletes.
const MAX_EXPIRED_RECORDS: u64 = 2_000;

/// How often a process that only reads checks whether the log has new records.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The log of one folder.
pub(super) struct Log {
    pub(super) readers: Arc<Readers>,
    pub(super) bounds: Arc<PartitionBounds>,
    pub(super) writer: Option<WriteQueue<LogOp>>,
    /// The number of votes that wait to be written.
    queued_votes: Gauge,
}

/// The bounds of each partition, in memory. They are up to date only in the process that writes the log.
pub(super) struct PartitionBounds {
    /// The offset that the next record of each partition gets.
    ends: Vec<AtomicU64>,
    /// For each partition, the first offset that has not expired.
    starts: Vec<AtomicU64>,
    /// Notifies waiting readers after a commit.
    changed: watch::Sender<()>,
}

impl Log {
    /// Opens the log for writing. At most `max_queued_votes` operations wait for the writing thread. The gauge
    /// `queued_votes` shows how many votes wait.
    pub(super) fn open(database: &Database, max_queued_votes: usize, queued_votes: Gauge) -> Result<Self, OpenError> {
        let mut log = Self::open_read_only(database.readers())?;
        let bounds = Arc::clone(&log.bounds);
        let handler = LogHandler { next: bounds.load_ends(), written: Vec::new(), bounds };
        log.writer = Some(WriteQueue::start("log", database, handler, max_queued_votes)?);
        log.queued_votes = queued_votes;
        Ok(log)
    }

    pub(super) fn open_read_only(readers: Arc<Readers>) -> Result<Self, OpenError> {
        let bounds = readers.read_blocking(read_all_bounds).map_err(|error| OpenError::new("log.db", error))?;
        let ends = bounds.iter().map(|bounds| AtomicU64::new(bounds.end.0)).collect();
        let starts = bounds.iter().map(|bounds| AtomicU64::new(bounds.start.0)).collect();
        let bounds = Arc::new(PartitionBounds { ends, starts, changed: watch::Sender::new(()) });
        Ok(Self { readers, bounds, writer: None, queued_votes: Gauge::noop() })
    }

    /// Returns whether no record was ever written to the log.
    pub(super) fn is_empty(&self) -> bool {
        self.bounds.load_ends().iter().all(|end| *end == 0)
    }

    pub(super) fn count_partitions(&self) -> u16 {
        u16::try_from(self.bounds.ends.len()).expect("the number of partitions was read as a u16")
    }

    fn writer(&self) -> Result<&WriteQueue<LogOp>, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::new("log.db", "opened for reading only"))
    }

    pub(super) async fn write(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<(), String>>) -> LogOp,
    ) -> Result<(), StoreError> {
        let (reply, outcome) = oneshot::channel();
        self.writer()?.enqueue(op(reply)).map_err(|problem| match problem {
            NotQueued::Full => StoreError::new("log.db", "the queue is full"),
            NotQueued::Stopped => StoreError::new("log.db", "the writing thread has ended"),
        })?;
        let outcome = outcome.await.unwrap_or_else(|_| Err("the writing thread has ended".to_owned()));
        outcome.map_err(|problem| StoreError::new("log.db", problem))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        match &self.writer {
            Some(_) => self.write(LogOp::Ping).await,
            None => self.readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await,
        }
    }

    /// Returns the bounds of a partition. The start is stored and does not depend on the records, so an audit can
    /// detect that a record at or after the start is missing.
    pub(super) async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        match &self.writer {
            Some(_) => Ok(Bounds {
                start: Offset(self.bounds.start_of(partition)),
                end: Offset(self.bounds.end_of(partition)),
            }),
            None => self.readers.read(move |db| read_bounds(db, partition)).await,
        }
    }

    /// Deletes the records below `to`, at most [`MAX_EXPIRED_RECORDS`] in a transaction, because new votes wait for
    /// each transaction. Returns the number of deleted records.
    pub(super) async fn expire_to(&self, partition: Partition, to: u64) -> Result<u64, StoreError> {
        let start = self.bounds(partition).await?.start.0;
        let mut from = start;
        while from < to {
            from = (from + MAX_EXPIRED_RECORDS).min(to);
            self.write(|reply| LogOp::Expire { partition, to: from, reply }).await?;
            self.bounds.starts[usize::from(partition.0)].store(from, Ordering::Release);
        }
        Ok(from - start)
    }

    /// Waits until the partition has a record at the offset `at` or after it.
    pub(super) async fn wait_for_record(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        if self.writer.is_none() {
            while self.bounds(partition).await?.end <= at {
                sleep(POLL_INTERVAL).await;
            }
            return Ok(());
        }
        let mut changed = self.bounds.changed.subscribe();
        while self.bounds.end_of(partition) <= at.0 {
            changed.changed().await.map_err(|error| StoreError::new("log.db", error))?;
        }
        Ok(())
    }
}

impl PartitionBounds {
    fn load_ends(&self) -> Vec<u64> {
        self.ends.iter().map(|end| end.load(Ordering::Acquire)).collect()
    }

    fn start_of(&self, partition: Partition) -> u64 {
        self.starts.get(usize::from(partition.0)).map_or(0, |start| start.load(Ordering::Acquire))
    }

    pub(super) fn end_of(&self, partition: Partition) -> u64 {
        self.ends.get(usize::from(partition.0)).map_or(0, |end| end.load(Ordering::Acquire))
    }
}

fn read_all_bounds(db: &Connection) -> rusqlite::Result<Vec<Bounds>> {
    let partitions: u16 = db.query_row("SELECT value FROM meta WHERE key = 'partitions'", [], |row| row.get(0))?;
    (0..partitions).map(|partition| read_bounds(db, Partition(partition))).collect()
}

/// Reads the bounds of a partition. This takes two look-ups by primary key.
fn read_bounds(db: &Connection, partition: Partition) -> rusqlite::Result<Bounds> {
    let sql = r#"SELECT "offset" FROM starts WHERE partition = ?1"#;
    let start = db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0)).optional()?.unwrap_or(0);
    let sql = r#"SELECT max("offset") FROM records WHERE partition = ?1"#;
    let last: Option<u64> = db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0))?;
    Ok(Bounds { start: Offset(start), end: Offset(last.map_or(start, |last| last + 1)) })
}

/// An operation of the writing thread.
pub(super) enum LogOp {
    Publish(Publish),
    SendToDeadLetters {
        dead_letters: Vec<DeadLetter>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Deletes the records below an offset.
    Expire {
        partition: Partition,
        to: u64,
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Writes a value, for health checks. Its completion also means that all operations before it are complete.
    Ping(oneshot::Sender<Result<(), String>>),
}

pub(super) struct Publish {
    partition: Partition,
    accepted_at: UnixMillis,
    key: BallotKey,
    value: Vec<u8>,
    traceparent: Option<TraceParent>,
    /// The offset of the vote, which is assigned when the vote is written.
    offset: Offset,
    reply: DeliverySender,
    _queued: QueuedVote,
}

/// Counts a queued vote in the gauge until this value is dropped.
struct QueuedVote(Gauge);

impl QueuedVote {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for QueuedVote {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

struct LogHandler {
    /// The next offset of each partition, after all committed records.
    next: Vec<u64>,
    /// The next offset of each partition, after the records of the open transaction.
    written: Vec<u64>,
    bounds: Arc<PartitionBounds>,
}

impl WriteHandler for LogHandler {
    type Op = LogOp;

    fn write(&mut self, db: &Connection, ops: &mut [LogOp]) -> rusqlite::Result<()> {
        self.written.clone_from(&self.next);
        let mut insert = db.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for op in ops {
            match op {
                LogOp::Publish(vote) => {
                    let next = &mut self.written[usize::from(vote.partition.0)];
                    vote.offset = Offset(*next);
                    let traceparent = vote.traceparent.as_ref().map(votes::TraceParent::as_str);
                    let (key, time) = (vote.key.as_str(), vote.accepted_at.0);
                    insert.execute(params![vote.partition.0, *next, time, key, vote.value, traceparent])?;
                    *next += 1;
                }
                LogOp::SendToDeadLetters { dead_letters, .. } => {
                    let mut insert =
                        db.prepare_cached("INSERT OR IGNORE INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                    for DeadLetter { position, accepted_at, invalid, .. } in &*dead_letters {
                        let InvalidRecord { reason, key, value } = invalid;
                        insert.execute(params![
                            position.partition.0,
                            position.offset.0,
                            accepted_at.0,
                            key,
                            value,
                            reason
                        ])?;
                    }
                }
                LogOp::Expire { partition, to, .. } => {
                    let set_start = "INSERT OR REPLACE INTO starts VALUES (?1, ?2)";
                    db.prepare_cached(set_start)?.execute(params![partition.0, *to])?;
                    let delete = r#"DELETE FROM records WHERE partition = ?1 AND "offset" < ?2"#;
                    db.prepare_cached(delete)?.execute(params![partition.0, *to])?;
                }
                LogOp::Ping(_) => {
                    let mut probe = db.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('checked_at', ?1)")?;
                    probe.execute([UnixMillis::now().0])?;
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self) {
        std::mem::swap(&mut self.next, &mut self.written);
        for (end, next) in self.bounds.ends.iter().zip(&self.next) {
            end.store(*next, Ordering::Release);
        }
        self.bounds.changed.send_replace(());
    }

    fn complete(op: LogOp, outcome: Result<(), String>) {
        // The caller may have dropped the receiver. This does not change what is on the log.
        match op {
            LogOp::Publish(vote) => {
                let position = LogPosition { partition: vote.partition, offset: vote.offset };
                let receipt =
                    outcome.map(|()| Receipt { position, accepted_at: vote.accepted_at }).map_err(|problem| {
                        PublishError::Unavailable(format!("the vote log could not be written: {problem}"))
                    });
                let _ = vote.reply.send(receipt);
            }
            LogOp::SendToDeadLetters { reply, .. } | LogOp::Expire { reply, .. } | LogOp::Ping(reply) => {
                let _ = reply.send(outcome);
            }
        }
    }
}

#[async_trait]
impl Store for Log {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.ping().await.map(|()| HealthDetails::new())
    }
}

#[async_trait]
impl LogWriter for Log {
    fn partitions(&self) -> u16 {
        self.count_partitions()
    }

    fn publish(&self, partition: Partition, vote: Vote) -> Result<DeliveryFuture, PublishError> {
        let writer = self.writer().map_err(|error| PublishError::Unavailable(error.to_string()))?;
        let (reply, receipt) = delivery_channel();
        let value = log_record::encode(&vote);
        let Vote { accepted_at, key, traceparent, .. } = vote;
        let queued = QueuedVote::new(&self.queued_votes);
        let publish =
            Publish { partition, accepted_at, key, value, traceparent, offset: Offset(0), reply, _queued: queued };
        match writer.enqueue(LogOp::Publish(publish)) {
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
