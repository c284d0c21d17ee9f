//! One `SQLite` file: made, checked and opened.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use votes::StoreError;

use super::folder::Folder;
use crate::OpenError;

/// The version of both files' schemas.
const SCHEMA_VERSION: i64 = 3;

/// Files up to this size are checked whole when they are opened, which takes some seconds at most; larger ones are left to the
/// audit.
const CHECKED_WHOLE: u64 = 1 << 30;

/// Page cache of a writer, in KiB.
const WRITER_CACHE: u32 = 16_384;

/// Page cache of a reader, in KiB: it reads each page once.
const READER_CACHE: u32 = 512;

/// How long a reader waits for a lock that `SQLite` itself takes for an instant.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What makes a file ours.
pub(super) struct Schema {
    pub(super) file: &'static str,
    /// In the file's header, so that a foreign file is told apart.
    pub(super) application_id: i64,
    pub(super) sql: &'static str,
}

/// A file that passed its checks.
pub(super) struct Database {
    path: PathBuf,
    file: &'static str,
    lock: Option<File>,
}

impl Database {
    /// Opens the file for this process alone to write; makes it if it is not there.
    pub(super) fn open(folder: &Folder, schema: &Schema) -> Result<Self, OpenError> {
        let path = folder.path().join(schema.file);
        if !path.exists() {
            make(&path, schema).map_err(|error| OpenError::new(path.display(), error))?;
        }
        let database = Self { path, file: schema.file, lock: folder.lock_file()? };
        database.check(schema, true)?;
        Ok(database)
    }

    /// Opens the file beside its writer.
    pub(super) fn open_for_reading(folder: &Folder, schema: &Schema) -> Result<Self, OpenError> {
        let database = Self { path: folder.path().join(schema.file), file: schema.file, lock: None };
        database.check(schema, false)?;
        Ok(database)
    }

    fn check(&self, schema: &Schema, is_owner: bool) -> Result<(), OpenError> {
        let error = |problem: String| OpenError::new(self.path.display(), problem);
        let torn = |problem: &dyn std::fmt::Display| {
            error(format!("{problem}; the file is damaged or not ours: restore it from a backup"))
        };
        let db = if is_owner { self.writer() } else { connect_reader(&self.path).map_err(|problem| torn(&problem)) }?;
        let pragma =
            |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|problem| torn(&problem));
        if pragma("application_id")? != schema.application_id {
            return Err(error("not an Ovation store of this kind; give another folder with --data".to_owned()));
        }
        let version = pragma("user_version")?;
        if version != SCHEMA_VERSION {
            return Err(error(format!(
                "has schema version {version}, this program knows {SCHEMA_VERSION}; use the program that made it"
            )));
        }
        if !is_owner {
            return Ok(());
        }
        // With everything copied from the write-ahead log, the file must have all the pages it says it has.
        let is_read_beside: bool =
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(|problem| torn(&problem))?;
        let expected = u64::try_from(pragma("page_count")? * pragma("page_size")?).unwrap_or(u64::MAX);
        let length = fs::metadata(&self.path).map_err(|problem| error(problem.to_string()))?.len();
        if length < expected && !is_read_beside {
            return Err(torn(&format!("has {length} bytes of {expected}")));
        }
        if length <= CHECKED_WHOLE {
            if let Some(problem) = find_damage(&db, 1).map_err(|problem| torn(&problem))?.first() {
                return Err(torn(problem));
            }
        } else {
            tracing::info!(file = self.file, bytes = length, "too large to check at start, the audit checks it");
        }
        Ok(())
    }

    /// What a check of every page finds.
    pub(super) fn problems(&self) -> Vec<String> {
        let found = connect_reader(&self.path).and_then(|db| find_damage(&db, 20));
        found.unwrap_or_else(|error| vec![error.to_string()])
    }

    /// A connection that may write.
    pub(super) fn writer(&self) -> Result<Connection, OpenError> {
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(&self.path, flags)?;
            db.busy_timeout(BUSY_TIMEOUT)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            // An acknowledgement follows the fsync of its transaction; NORMAL would skip it.
            db.pragma_update(None, "synchronous", "FULL")?;
            // The checkpoint thread does it.
            db.pragma_update(None, "wal_autocheckpoint", 0)?;
            db.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE))?;
            db.set_prepared_statement_cache_capacity(64);
            Ok(db)
        };
        open().map_err(|error| OpenError::new(self.path.display(), format!("{error}; the file is damaged or not ours")))
    }

    pub(super) fn readers(&self) -> Arc<Readers> {
        let lock = self.lock.as_ref().and_then(|lock| lock.try_clone().ok());
        Arc::new(Readers { path: self.path.clone(), file: self.file, idle: Mutex::default(), _lock: lock })
    }
}

fn find_damage(db: &Connection, most: u32) -> rusqlite::Result<Vec<String>> {
    let mut check = db.prepare(&format!("PRAGMA quick_check({most})"))?;
    let verdicts = check.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(verdicts.into_iter().filter(|verdict| verdict != "ok").collect())
}

/// Makes a file under another name first, so that a file with our name is always whole.
fn make(path: &Path, schema: &Schema) -> Result<(), Box<dyn std::error::Error>> {
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

/// Bytes of a file that hold something: what is free in it is used again before it grows.
pub(super) fn used_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?)
}

/// Read-only connections, as many as are used at once.
pub(super) struct Readers {
    path: PathBuf,
    file: &'static str,
    idle: Mutex<Vec<Connection>>,
    _lock: Option<File>,
}

impl Readers {
    /// Runs a query off the async threads, in one short transaction that sees one moment.
    pub(super) async fn read<R: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let readers = Arc::clone(self);
        let outcome = tokio::task::spawn_blocking(move || readers.read_now(query)).await;
        outcome.map_err(|error| StoreError::new(self.file, error))?
    }

    /// As [`read`](Self::read), on a connection of its own.
    pub(super) async fn read_directly<R: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<R> + Send + 'static,
    ) -> Result<R, StoreError> {
        let readers = Arc::clone(self);
        let read = move || connect_reader(&readers.path).and_then(|mut db| query(&*db.transaction()?));
        let outcome = tokio::task::spawn_blocking(read).await.map_err(|error| StoreError::new(self.file, error))?;
        outcome.map_err(|error| StoreError::new(self.file, error))
    }

    /// As [`read`](Self::read), on this thread.
    pub(super) fn read_now<R>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, StoreError> {
        let error = |error: rusqlite::Error| StoreError::new(self.file, error);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut db = idle.map_or_else(|| connect_reader(&self.path), Ok).map_err(error)?;
        let outcome = db.transaction().and_then(|moment| query(&moment)).map_err(error)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
        Ok(outcome)
    }
}

fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "cache_size", -i64::from(READER_CACHE))?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}
