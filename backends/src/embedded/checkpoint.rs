//! Copies the write-ahead log back into its file, beside the writing thread, so that no acknowledgement waits for it.

use std::{
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use crate::OpenError;

/// How often what has been written is copied.
const EVERY: Duration = Duration::from_millis(500);

/// Pages of the write-ahead log after which it begins anew: 64 MiB. The writer waits for that, but almost all has been
/// copied by then.
const MAX_PAGES: i64 = 16_384;

/// The copying thread; ends when it is dropped.
pub(super) struct Checkpointer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(name: &'static str, db: Connection) -> Result<Self, OpenError> {
        let (stop, stopped) = channel::<()>();
        let copy = move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = checkpoint(&db) {
                    tracing::warn!(file = name, %error, "the write-ahead log was not copied, it will be tried again");
                }
            }
        };
        let thread = thread::Builder::new().name(format!("{name}-checkpoint")).spawn(copy);
        let thread = thread.map_err(|error| OpenError::new(name, error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
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

fn checkpoint(db: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    if pages > MAX_PAGES {
        db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    }
    Ok(())
}
