//! Copies the write-ahead log to the file of the database. A separate thread does this, so that an acknowledgement
//! waits only for the restart of the write-ahead log.
//!
//! The writing thread restarts the write-ahead log when the copying thread reports that the restart is
//! [overdue](Checkpointer::take_restart_overdue). So the write-ahead log stays bounded even if copying is slower than
//! writing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use votes::OpenError;

/// The time between two checkpoints. A checkpoint copies the pages that were written since the last checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);

/// The size in pages at which the write-ahead log is restarted: 64 MiB. The writer waits for the restart, but almost
/// all pages have been copied by then.
const MAX_PAGES: i64 = 16_384;

/// The thread that copies. Dropping the checkpointer ends the thread.
pub(super) struct Checkpointer {
    is_restart_overdue: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(name: &'static str, db: Connection) -> Result<Self, OpenError> {
        let (stop, stopped) = channel::<()>();
        let is_restart_overdue = Arc::new(AtomicBool::new(false));
        let is_overdue = Arc::clone(&is_restart_overdue);
        let copy = move || {
            while stopped.recv_timeout(CHECKPOINT_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                match checkpoint(&db, "PASSIVE") {
                    Ok(pages) if pages > MAX_PAGES => is_overdue.store(true, Ordering::Relaxed),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(file = name, %error, "the write-ahead log was not copied"),
                }
            }
        };
        let thread = thread::Builder::new().name(format!("{name}-checkpoint")).spawn(copy);
        let thread = thread.map_err(|error| OpenError::new(name, error))?;
        Ok(Self { is_restart_overdue, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns whether the writer must restart the write-ahead log, and resets this flag.
    pub(super) fn take_restart_overdue(&self) -> bool {
        self.is_restart_overdue.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a copying thread panicked");
        }
    }
}

/// Copies the rest of the write-ahead log and restarts it. Only the writing thread may call this, so that nothing is
/// written meanwhile.
pub(super) fn restart(db: &Connection) -> rusqlite::Result<()> {
    checkpoint(db, "RESTART").map(|_| ())
}

/// Runs a checkpoint, and returns the number of pages in the write-ahead log.
fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<i64> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
