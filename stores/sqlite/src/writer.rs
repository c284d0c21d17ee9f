//! The writing thread of a file. Queued operations share a transaction, and so one fsync (group commit). No timer is
//! needed: under load, operations queue up while the disk is busy.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use futures_channel::oneshot;
use rusqlite::Connection;
use votes::{OpenError, StoreError};

use crate::{
    database::Database,
    wal::{self, Checkpointer},
};

/// The maximum number of operations in one transaction.
const MAX_OPS_PER_TRANSACTION: usize = 1_000;

/// Executes the operations of a writing thread.
pub(super) trait WriteHandler: Send + 'static {
    /// One operation, with the sender of its result.
    type Op: Send;

    /// Executes operations in an open transaction. If the transaction fails, it is rolled back, and the operations may
    /// be executed again.
    fn write(&mut self, db: &Connection, ops: &mut [Self::Op]) -> rusqlite::Result<()>;

    /// Handles that the transaction of the last [`write`](Self::write) is durable.
    fn committed(&mut self) {}

    /// Reports the outcome of an operation to its caller, after the transaction is durable or has failed.
    fn complete(op: Self::Op, outcome: Result<(), String>);
}

/// The queue of a writing thread. Dropping it waits until the thread has finished all queued operations.
pub(super) struct WriteQueue<Op> {
    sender: Option<SyncSender<Op>>,
    thread: Option<JoinHandle<()>>,
}

/// Why an operation was not queued.
pub(super) enum NotQueued {
    /// The queue is full.
    Full,
    /// The thread has ended.
    Stopped,
}

impl<Op: Send + 'static> WriteQueue<Op> {
    pub(super) fn start(
        name: &'static str,
        database: &Database,
        handler: impl WriteHandler<Op = Op>,
        max_queued: usize,
    ) -> Result<Self, OpenError> {
        let db = database.writer()?;
        let checkpointer = Checkpointer::start(name, database.writer()?)?;
        let (sender, queue) = sync_channel(max_queued);
        let thread = thread::Builder::new()
            .name(format!("{name}-writer"))
            .spawn(move || run_writer(name, &db, &checkpointer, handler, &queue))
            .map_err(|error| OpenError::new(name, error))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Adds an operation to the queue. Never waits.
    pub(super) fn enqueue(&self, op: Op) -> Result<(), NotQueued> {
        let sender = self.sender.as_ref().ok_or(NotQueued::Stopped)?;
        sender.try_send(op).map_err(|error| match error {
            TrySendError::Full(_) => NotQueued::Full,
            TrySendError::Disconnected(_) => NotQueued::Stopped,
        })
    }
}

impl<Op> Drop for WriteQueue<Op> {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a writing thread panicked");
        }
    }
}

/// Executes the operations of the queue, until the queue is empty and closed.
fn run_writer<H: WriteHandler>(
    name: &'static str,
    db: &Connection,
    checkpointer: &Checkpointer,
    mut handler: H,
    queue: &Receiver<H::Op>,
) {
    let mut ops = Vec::with_capacity(MAX_OPS_PER_TRANSACTION);
    while let Ok(first) = queue.recv() {
        ops.push(first);
        while ops.len() < MAX_OPS_PER_TRANSACTION {
            match queue.try_recv() {
                Ok(op) => ops.push(op),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let outcome = commit(db, &mut handler, &mut ops);
        if outcome.is_err() && ops.len() > 1 {
            // A single operation may be the cause. Execute each operation in its own transaction, so that the others
            // succeed.
            for mut op in ops.drain(..) {
                let outcome = commit(db, &mut handler, std::slice::from_mut(&mut op));
                report::<H>(name, op, outcome);
            }
        } else {
            ops.drain(..).for_each(|op| report::<H>(name, op, outcome.clone()));
        }
        if checkpointer.take_restart_overdue()
            && let Err(error) = wal::restart(db)
        {
            tracing::warn!(file = name, %error, "the write-ahead log was not restarted");
        }
    }
}

fn report<H: WriteHandler>(name: &'static str, op: H::Op, outcome: Result<(), String>) {
    if let Err(error) = &outcome {
        tracing::error!(file = name, %error, "a write failed");
    }
    H::complete(op, outcome);
}

fn commit<H: WriteHandler>(db: &Connection, handler: &mut H, ops: &mut [H::Op]) -> Result<(), String> {
    let begin = || db.execute_batch("BEGIN IMMEDIATE");
    let outcome = begin().and_then(|()| handler.write(db, ops)).and_then(|()| db.execute_batch("COMMIT"));
    match outcome {
        Ok(()) => {
            handler.committed();
            Ok(())
        }
        Err(error) => {
            if !db.is_autocommit()
                && let Err(error) = db.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "rolling back failed");
            }
            Err(error.to_string())
        }
    }
}

/// Runs closures on the writing thread of a file, and returns their results.
#[derive(Clone)]
pub(super) struct WriteExecutor {
    name: &'static str,
    queue: Arc<WriteQueue<Box<dyn WriteOp>>>,
}

/// The maximum number of closures in the queue. Each caller waits for its closure, so the queue is usually short.
const MAX_QUEUED_OPS: usize = 1_024;

impl WriteExecutor {
    pub(super) fn new(name: &'static str, database: &Database) -> Result<Self, OpenError> {
        Ok(Self { name, queue: Arc::new(WriteQueue::start(name, database, ClosureHandler, MAX_QUEUED_OPS)?) })
    }

    /// Runs a closure in a transaction, and waits until the transaction is durable. Other closures may share the
    /// transaction. If the transaction fails, it is rolled back. The closure may run twice, because after a failed
    /// transaction each of its closures is tried again.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        closure: impl FnMut(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, result) = oneshot::channel();
        let op = ClosureOp { closure, result: None, reply };
        self.queue.enqueue(Box::new(op)).map_err(|problem| match problem {
            NotQueued::Full => StoreError::new(self.name, "too many writes are waiting"),
            NotQueued::Stopped => StoreError::new(self.name, "the writing thread has ended"),
        })?;
        let outcome = result.await.map_err(|_| StoreError::new(self.name, "the writing thread has ended"))?;
        outcome.map_err(|problem| StoreError::new(self.name, problem))
    }
}

trait WriteOp: Send {
    fn execute(&mut self, db: &Connection) -> rusqlite::Result<()>;
    fn complete(self: Box<Self>, outcome: Result<(), String>);
}

struct ClosureOp<F, R> {
    closure: F,
    result: Option<R>,
    reply: oneshot::Sender<Result<R, String>>,
}

impl<R: Send, F: FnMut(&Connection) -> rusqlite::Result<R> + Send> WriteOp for ClosureOp<F, R> {
    fn execute(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.result = Some((self.closure)(db)?);
        Ok(())
    }

    fn complete(self: Box<Self>, outcome: Result<(), String>) {
        let Self { result, reply, .. } = *self;
        let result = outcome.and_then(|()| result.ok_or_else(|| "not run".to_owned()));
        // The caller may have dropped the receiver. This does not change what was written.
        let _ = reply.send(result);
    }
}

struct ClosureHandler;

impl WriteHandler for ClosureHandler {
    type Op = Box<dyn WriteOp>;

    fn write(&mut self, db: &Connection, ops: &mut [Self::Op]) -> rusqlite::Result<()> {
        ops.iter_mut().try_for_each(|op| op.execute(db))
    }

    fn complete(op: Self::Op, outcome: Result<(), String>) {
        op.complete(outcome);
    }
}
