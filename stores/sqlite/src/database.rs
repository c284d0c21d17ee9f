//! Creates, checks and opens one `SQLite` file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use votes::{OpenError, StoreError, UnixMillis};

use crate::folder::Folder;

/// The version of the schemas of all files.
const SCHEMA_VERSION: i64 = 6;

/// The maximum size of a file whose pages are all checked when it is opened. Such a check takes a few seconds at most.
/// The audit also checks larger files.
const MAX_CHECKED_BYTES: u64 = 1 << 30;

/// The page cache of a writer, in KiB.
const WRITER_CACHE_KIB: u32 = 16_384;

/// The page cache of a reader, in KiB. It is small, because a query seldom reads a page twice.
const READER_CACHE_KIB: u32 = 512;

/// The longest time to wait for a lock of the database. `SQLite` holds such a lock only briefly.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The schema of a file, and the id by which the file is recognised.
pub(super) struct Schema {
    pub(super) file: &'static str,
    /// The id in the header of the file. A file of another kind or of another program has another id.
    pub(super) application_id: i64,
    pub(super) sql: &'static str,
}

/// A file that passed its checks.
pub(super) struct Database {
    path: PathBuf,
    file: &'static str,
    /// A handle of the lock of the folder, if this process may write.
    lock: Option<File>,
}

impl Database {
    /// Opens the file for writing, and creates it if it is missing. `folder` must be locked by this process.
    pub(super) fn open(folder: &Folder, schema: &Schema) -> Result<Self, OpenError> {
        let path = folder.path().join(schema.file);
        if !path.exists() {
            create(&path, schema).map_err(|error| OpenError::new(path.display(), error))?;
        }
        let database = Self { path, file: schema.file, lock: folder.lock_file()? };
        database.check(schema, true)?;
        Ok(database)
    }

    /// Opens the file for reading. Another process may write to the file meanwhile.
    pub(super) fn open_for_reading(folder: &Folder, schema: &Schema) -> Result<Self, OpenError> {
        let database = Self { path: folder.path().join(schema.file), file: schema.file, lock: None };
        database.check(schema, false)?;
        Ok(database)
    }

    fn check(&self, schema: &Schema, is_owner: bool) -> Result<(), OpenError> {
        let error = |problem: String| OpenError::new(self.path.display(), problem);
        let damaged = |problem: &dyn std::fmt::Display| {
            error(format!("{problem}; the file is damaged, or not a store of Ovation: restore it from a backup"))
        };
        let db =
            if is_owner { self.writer() } else { connect_reader(&self.path).map_err(|problem| damaged(&problem)) }?;
        let pragma =
            |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|problem| damaged(&problem));
        if pragma("application_id")? != schema.application_id {
            return Err(error("not an Ovation store of this kind; give another folder with --data".to_owned()));
        }
        let version = pragma("user_version")?;
        if version != SCHEMA_VERSION {
            return Err(error(format!(
                "has schema version {version}, and this program supports {SCHEMA_VERSION}; use the release that created it"
            )));
        }
        if !is_owner {
            return Ok(());
        }
        // After this checkpoint of the write-ahead log, the file must be as long as its header says. A reader in
        // another process can prevent the checkpoint.
        let is_blocked: bool = db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(|problem| damaged(&problem))?;
        let expected = u64::try_from(pragma("page_count")? * pragma("page_size")?).unwrap_or(u64::MAX);
        let length = fs::metadata(&self.path).map_err(|problem| error(problem.to_string()))?.len();
        if length < expected && !is_blocked {
            return Err(damaged(&format!("has {length} bytes of {expected}")));
        }
        if length <= MAX_CHECKED_BYTES {
            if let Some(problem) = quick_check(&db, 1).map_err(|problem| damaged(&problem))?.first() {
                return Err(damaged(problem));
            }
        } else {
            tracing::info!(
                file = self.file,
                bytes = length,
                "the file is too large to check all its pages at the start; the audit checks them"
            );
        }
        Ok(())
    }

    /// Checks every page, and returns at most 20 problems.
    pub(super) fn find_problems(&self) -> Vec<String> {
        let found = connect_reader(&self.path).and_then(|db| quick_check(&db, 20));
        found.unwrap_or_else(|error| vec![error.to_string()])
    }

    /// Opens a connection that may write.
    pub(super) fn writer(&self) -> Result<Connection, OpenError> {
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(&self.path, flags)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            // A vote must be acknowledged only after the fsync of its transaction. With NORMAL there would be no fsync.
            db.pragma_update(None, "synchronous", "FULL")?;
            // The thread of the checkpointer runs the checkpoints.
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            db.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE_KIB))?;
            db.set_prepared_statement_cache_capacity(64);
            Ok(db)
        };
        open().map_err(|error| {
            OpenError::new(self.path.display(), format!("{error}; the file is damaged, or not a store of Ovation"))
        })
    }

    pub(super) fn readers(&self) -> Arc<Readers> {
        let lock = self.lock.as_ref().and_then(|lock| lock.try_clone().ok());
        Arc::new(Readers { path: self.path.clone(), file: self.file, idle: Mutex::default(), _lock: lock })
    }
}

/// Checks every page, and returns at most `max` problems.
fn quick_check(db: &Connection, max: u32) -> rusqlite::Result<Vec<String>> {
    let mut check = db.prepare(&format!("PRAGMA quick_check({max})"))?;
    let results = check.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(results.into_iter().filter(|result| result != "ok").collect())
}

/// Creates a file with another name and then renames it, so that a file with the final name is always complete.
fn create(path: &Path, schema: &Schema) -> Result<(), Box<dyn std::error::Error>> {
    let new = path.with_extension("new");
    for leftover in [new.clone(), new.with_extension("new-wal"), new.with_extension("new-journal")] {
        if leftover.exists() {
            fs::remove_file(leftover)?;
        }
    }
    let db = Connection::open(&new)?;
    db.pragma_update(None, "application_id", schema.application_id)?;
    db.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    db.execute_batch(schema.sql)?;
    db.close().map_err(|(_, error)| error)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().ok_or("a file has a folder")?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Returns the bytes of a file that are in use. They do not include free pages, which `SQLite` uses again before the
/// file grows.
pub(super) fn used_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

/// A pool of read-only connections. It grows to the number of concurrent queries.
pub(super) struct Readers {
    path: PathBuf,
    file: &'static str,
    idle: Mutex<Vec<Connection>>,
    /// Keeps the folder locked while a query may run, if this process has locked it.
    _lock: Option<File>,
}

impl Readers {
    /// Runs a query on a blocking thread. The query runs in one transaction, so it reads one state of the file.
    pub(super) async fn read<R: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let readers = Arc::clone(self);
        let outcome = tokio::task::spawn_blocking(move || readers.read_blocking(query)).await;
        outcome.map_err(|error| StoreError::new(self.file, error))?
    }

    /// Does the same as [`read`](Self::read) on a new connection, and then closes this connection.
    pub(super) async fn read_directly<R: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let readers = Arc::clone(self);
        let read = move || connect_reader(&readers.path).and_then(|mut db| query(&*db.transaction()?));
        let outcome = tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::new(self.file, error))?;
        outcome.map_err(|error| StoreError::new(self.file, error))
    }

    /// Does the same as [`read`](Self::read) on the thread of the caller. Blocks.
    pub(super) fn read_blocking<R>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<R>,
    ) -> Result<R, StoreError> {
        let error = |error: rusqlite::Error| StoreError::new(self.file, error);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut db = idle.map_or_else(|| connect_reader(&self.path), Ok).map_err(error)?;
        let outcome = db.transaction().and_then(|transaction| query(&transaction)).map_err(error)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
        Ok(outcome)
    }
}

fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "cache_size", -i64::from(READER_CACHE_KIB))?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}

/// Writes a value, to check that the disk accepts writes.
pub(super) fn write_probe(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('checked_at', ?1)")?.execute([UnixMillis::now().0])?;
    Ok(())
}
