//! One thread that writes one file: whatever is queued shares a transaction, and so an fsync. There is no timer; under load
//! the queue fills while the disk works.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use futures_channel::oneshot;
use rusqlite::Connection;
use votes::StoreError;

use super::{
    checkpoint::{self, Checkpointer},
    database::Database,
};
use crate::OpenError;

/// The most jobs of one transaction.
const MAX_JOBS: usize = 1_000;

/// What a writing thread does with its jobs.
pub(super) trait Sink: Send + 'static {
    /// One thing to write, and whom to tell.
    type Job: Send;

    /// Writes the jobs within an open transaction. It may be rolled back, and the jobs written again.
    fn write(&mut self, db: &Connection, jobs: &mut [Self::Job]) -> rusqlite::Result<()>;

    /// What was written last is durable.
    fn committed(&mut self) {}

    /// Tells whoever waits for this job, after its transaction is durable or has failed.
    fn settle(job: Self::Job, outcome: Result<(), String>);
}

/// The queue before a writing thread. Dropping it lets the thread finish what is queued, and waits for that.
pub(super) struct Writer<J> {
    sender: Option<SyncSender<J>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a job was not queued.
pub(super) enum NotQueued {
    /// As many jobs wait as the queue is bounded to.
    Full,
    /// The thread has ended.
    Stopped,
}

impl<J: Send + 'static> Writer<J> {
    pub(super) fn start(
        name: &'static str,
        database: &Database,
        sink: impl Sink<Job = J>,
        bound: usize,
    ) -> Result<Self, OpenError> {
        let db = database.writer()?;
        let checkpointer = Checkpointer::start(name, database.writer()?)?;
        let (sender, jobs) = sync_channel(bound);
        let thread = thread::Builder::new()
            .name(format!("{name}-writer"))
            .spawn(move || write_all(name, &db, &checkpointer, sink, &jobs))
            .map_err(|error| OpenError::new(name, error))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    pub(super) fn queue(&self, job: J) -> Result<(), NotQueued> {
        let sender = self.sender.as_ref().ok_or(NotQueued::Stopped)?;
        sender.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => NotQueued::Full,
            TrySendError::Disconnected(_) => NotQueued::Stopped,
        })
    }
}

impl<J> Drop for Writer<J> {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a writing thread panicked");
        }
    }
}

fn write_all<S: Sink>(
    name: &'static str,
    db: &Connection,
    checkpointer: &Checkpointer,
    mut sink: S,
    queue: &Receiver<S::Job>,
) {
    let mut jobs = Vec::with_capacity(MAX_JOBS);
    while let Ok(first) = queue.recv() {
        jobs.push(first);
        while jobs.len() < MAX_JOBS {
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let outcome = commit(db, &mut sink, &mut jobs);
        if outcome.is_err() && jobs.len() > 1 {
            // One of them may be at fault; the others must not wait for it for ever.
            for mut job in jobs.drain(..) {
                let outcome = commit(db, &mut sink, std::slice::from_mut(&mut job));
                report::<S>(name, job, outcome);
            }
        } else {
            jobs.drain(..).for_each(|job| report::<S>(name, job, outcome.clone()));
        }
        if checkpointer.is_overdue()
            && let Err(error) = checkpoint::restart(db)
        {
            tracing::warn!(file = name, %error, "the write-ahead log did not begin anew");
        }
    }
}

fn report<S: Sink>(name: &'static str, job: S::Job, outcome: Result<(), String>) {
    if let Err(error) = &outcome {
        tracing::error!(file = name, %error, "not written");
    }
    S::settle(job, outcome);
}

fn commit<S: Sink>(db: &Connection, sink: &mut S, jobs: &mut [S::Job]) -> Result<(), String> {
    let begin = || db.execute_batch("BEGIN IMMEDIATE");
    let outcome = begin().and_then(|()| sink.write(db, jobs)).and_then(|()| db.execute_batch("COMMIT"));
    match outcome {
        Ok(()) => {
            sink.committed();
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

/// A writer whose jobs are closures with results.
#[derive(Clone)]
pub(super) struct Tasks {
    name: &'static str,
    writer: Arc<Writer<Box<dyn Task>>>,
}

/// The most tasks that may wait: each has an async caller who waits for it, so there are few.
const MAX_TASKS: usize = 1_024;

impl Tasks {
    pub(super) fn new(name: &'static str, database: &Database) -> Result<Self, OpenError> {
        Ok(Self { name, writer: Arc::new(Writer::start(name, database, TaskSink, MAX_TASKS)?) })
    }

    /// Runs the closure in a transaction and waits until that is durable. Others may share the transaction; if it fails,
    /// nothing of it was done.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (reply, result) = oneshot::channel();
        let task = Work { run: work, result: None, reply };
        self.writer.queue(Box::new(task)).map_err(|problem| match problem {
            NotQueued::Full => StoreError::new(self.name, "too many writes are waiting"),
            NotQueued::Stopped => StoreError::new(self.name, "the writing thread has ended"),
        })?;
        let outcome = result.await.map_err(|_| StoreError::new(self.name, "the writing thread has ended"))?;
        outcome.map_err(|problem| StoreError::new(self.name, problem))
    }
}

trait Task: Send {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()>;
    fn settle(self: Box<Self>, outcome: Result<(), String>);
}

struct Work<F, R> {
    run: F,
    result: Option<R>,
    reply: oneshot::Sender<Result<R, String>>,
}

impl<R: Send, F: FnMut(&Connection) -> rusqlite::Result<R> + Send> Task for Work<F, R> {
    fn run(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.result = Some((self.run)(db)?);
        Ok(())
    }

    fn settle(self: Box<Self>, outcome: Result<(), String>) {
        let Self { result, reply, .. } = *self;
        let result = outcome.and_then(|()| result.ok_or_else(|| "not run".to_owned()));
        // Nobody listens any more: the caller was dropped, which loses nothing.
        let _ = reply.send(result);
    }
}

struct TaskSink;

impl Sink for TaskSink {
    type Job = Box<dyn Task>;

    fn write(&mut self, db: &Connection, jobs: &mut [Self::Job]) -> rusqlite::Result<()> {
        jobs.iter_mut().try_for_each(|job| job.run(db))
    }

    fn settle(job: Self::Job, outcome: Result<(), String>) {
        job.settle(outcome);
    }
}
