//! Copies the write-ahead log back into its file, beside the writing thread, so that no acknowledgement waits for it.
//!
//! Only the writer can make the write-ahead log begin anew: it does so itself when this thread says that it is
//! [overdue](Checkpointer::is_overdue). So the log stays bounded even where copying is slower than writing.

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

use crate::OpenError;

/// How often what has been written is copied.
const EVERY: Duration = Duration::from_millis(500);

/// Pages of the write-ahead log after which it begins anew: 64 MiB. The writer waits for that, but almost all of it has been
/// copied by then.
const MAX_PAGES: i64 = 16_384;

/// The copying thread; ends when it is dropped.
pub(super) struct Checkpointer {
    overdue: Arc<AtomicBool>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(name: &'static str, db: Connection) -> Result<Self, OpenError> {
        let (stop, stopped) = channel::<()>();
        let overdue = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&overdue);
        let copy = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                match checkpoint(&db, "PASSIVE") {
                    Ok(pages) if pages > MAX_PAGES => tell.store(true, Ordering::Relaxed),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(file = name, %error, "the write-ahead log was not copied"),
                }
            }
        };
        let thread = thread::Builder::new().name(format!("{name}-checkpoint")).spawn(copy);
        let thread = thread.map_err(|error| OpenError::new(name, error))?;
        Ok(Self { overdue, stop: Some(stop), thread: Some(thread) })
    }

    /// Whether the writer has to begin the write-ahead log anew; asked once, it is taken as done.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue.swap(false, Ordering::Relaxed)
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

/// Copies the rest of the write-ahead log and begins it anew. On the writing connection nobody writes meanwhile.
pub(super) fn restart(db: &Connection) -> rusqlite::Result<()> {
    checkpoint(db, "RESTART").map(|_| ())
}

/// Returns the pages of the write-ahead log.
fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<i64> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
