//! The embedded stores: three `SQLite` files in one folder, for one machine.
//!
//! | file | content | module |
//! |---|---|---|
//! | `log.db` | the vote log: records by partition and offset, and dead letters | [`log`], [`log_reader`] |
//! | `count.db` | the ledger, and the tallies with their positions | [`ledger`], [`retention`], [`tallies`] |
//! | `datasets.db` | datasets, imports, and popular queries | [`datasets`], [`imports`], [`response_cache`] |
//! | `secret` | the secret that voters are hashed with | [`folder`] |
//! | `lock` | the lock of the one process that may write | [`folder`] |
//!
//! All databases are in WAL mode with `synchronous=FULL`. Each database has one writing thread, which commits queued
//! writes together ([`writer`]). A write returns after the fsync of its transaction. A second thread copies the
//! write-ahead log to the file ([`wal`]). The files are separate, so that acknowledging does not wait for
//! counting, and counting does not wait for an import. Readers, in this process or in another process, use read-only
//! transactions ([`database`]). Queries use them too ([`query_store`]).

mod database;
mod datasets;
mod folder;
mod imports;
mod ledger;
mod log;
mod log_reader;
mod query_store;
mod response_cache;
mod retention;
mod summary;
mod tallies;
mod wal;
mod writer;

use std::{path::Path, sync::Arc};

use metrics::Gauge;
use query::{ChunkQueue, Datasets, Imports, QueryStore, ResponseCache};
use votes::{LogReader, LogWriter, OpenError, Tallies, VoterSecret, WholeLedger};

use self::{
    database::{Database, Readers},
    folder::Folder,
    imports::EmbeddedImports,
    log::Log,
};
pub use folder::is_in_use;

/// The stores of one folder.
#[derive(Clone)]
pub struct Embedded {
    log: Arc<Log>,
    /// The ledger.
    pub ledger: Arc<dyn WholeLedger>,
    /// The tallies.
    pub tallies: Arc<dyn Tallies>,
    /// The secret that voters are hashed with, unless the configuration has another one.
    pub secret: VoterSecret,
    /// `None` if the folder is open for reading.
    owner_stores: Option<OwnerStores>,
}

/// The stores for queries and imports. Only the process that may write to the folder has them.
#[derive(Clone)]
struct OwnerStores {
    count: Arc<Readers>,
    datasets: Arc<Readers>,
    writer: writer::WriteExecutor,
    imports: Arc<EmbeddedImports>,
}

impl Embedded {
    /// Opens the folder for writing, and creates missing files. At most `max_queued_votes` votes wait for the log. The
    /// gauge `queued_votes` shows their number.
    ///
    /// # Errors
    /// If another process has the folder open for writing, if a file is damaged, or if `log.db` or `secret` is missing
    /// although the folder has been in use.
    pub fn open(path: &Path, max_queued_votes: usize, queued_votes: Gauge) -> Result<Self, OpenError> {
        let folder = Folder::lock(path)?;
        let log_db = Database::open(&folder, &log::SCHEMA)?;
        let count_db = Database::open(&folder, &COUNT_SCHEMA)?;
        let log = Log::open(&log_db, max_queued_votes, queued_votes)?;
        let secret = folder.secret(log.is_empty())?;
        let count = writer::WriteExecutor::new("count", &count_db)?;
        let ledger = ledger::EmbeddedLedger::new(count_db.readers(), Some(count.clone()));
        let tallies = tallies::EmbeddedTallies::new(count_db.readers(), Some(count))?;
        let datasets_db = Database::open(&folder, &DATASETS_SCHEMA)?;
        let writer = writer::WriteExecutor::new("datasets", &datasets_db)?;
        let imports = Arc::new(EmbeddedImports::new(datasets_db.readers(), writer.clone()));
        let owner_stores = OwnerStores { count: count_db.readers(), datasets: datasets_db.readers(), writer, imports };
        Ok(Self {
            log: Arc::new(log),
            ledger: Arc::new(ledger),
            tallies: Arc::new(tallies),
            secret,
            owner_stores: Some(owner_stores),
        })
    }

    /// Opens the folder for reading. Another process may write to it meanwhile.
    pub fn open_for_reading(path: &Path) -> Result<Self, OpenError> {
        let folder = Folder::open_for_reading(path)?;
        let readers = |schema| Database::open_for_reading(&folder, schema).map(|database| database.readers());
        let log = Log::open_read_only(readers(&log::SCHEMA)?)?;
        let count: Arc<Readers> = readers(&COUNT_SCHEMA)?;
        let secret = folder.secret(false)?;
        let (ledger, tallies) =
            (ledger::EmbeddedLedger::new(Arc::clone(&count), None), tallies::EmbeddedTallies::new(count, None)?);
        Ok(Self {
            log: Arc::new(log),
            ledger: Arc::new(ledger),
            tallies: Arc::new(tallies),
            secret,
            owner_stores: None,
        })
    }

    /// Checks all pages of `log.db` and `count.db`, and that every ballot has its vote. Returns the problems.
    pub fn integrity_errors(path: &Path) -> Result<Vec<String>, OpenError> {
        let folder = Folder::open_for_reading(path)?;
        let mut errors = Vec::new();
        for schema in [&log::SCHEMA, &COUNT_SCHEMA] {
            let problems = Database::open_for_reading(&folder, schema)?.find_problems();
            errors.extend(problems.into_iter().map(|problem| format!("{}: {problem}", schema.file)));
        }
        let count = Database::open_for_reading(&folder, &COUNT_SCHEMA)?.readers();
        match count.read_blocking(ledger::count_ballots_without_vote) {
            Ok(0) => {}
            Ok(ballots) => errors.push(format!("count.db: {ballots} ballots have no vote")),
            Err(error) => errors.push(error.to_string()),
        }
        Ok(errors)
    }

    /// Returns the query store, if the folder is open for writing. With `is_direct` it opens a new connection for each
    /// query, otherwise it uses a pool of connections.
    pub fn query_store(&self, is_direct: bool) -> Option<Arc<dyn QueryStore>> {
        let OwnerStores { count, datasets, .. } = self.owner_stores.as_ref()?;
        let query_store = query_store::EmbeddedQueryStore::new(Arc::clone(count), Arc::clone(datasets), is_direct);
        Some(Arc::new(query_store))
    }

    /// Returns the datasets, if the folder is open for writing.
    pub fn datasets(&self) -> Option<Arc<dyn Datasets>> {
        let OwnerStores { datasets, writer, .. } = self.owner_stores.as_ref()?;
        Some(Arc::new(datasets::EmbeddedDatasets::new(Arc::clone(datasets), writer.clone())))
    }

    /// Returns the state of imports, if the folder is open for writing.
    pub fn imports(&self) -> Option<Arc<dyn Imports>> {
        Some(Arc::clone(&self.owner_stores.as_ref()?.imports) as Arc<dyn Imports>)
    }

    /// Returns the queue of the chunks of imports, if the folder is open for writing.
    pub fn chunks(&self) -> Option<Arc<dyn ChunkQueue>> {
        Some(Arc::clone(&self.owner_stores.as_ref()?.imports) as Arc<dyn ChunkQueue>)
    }

    /// Creates a response cache of at most `max_bytes` bytes, if the folder is open for writing.
    pub fn response_cache(&self, max_bytes: usize) -> Option<Arc<dyn ResponseCache>> {
        let OwnerStores { count, datasets, writer, .. } = self.owner_stores.as_ref()?;
        let response_cache = response_cache::EmbeddedResponseCache::new(
            Arc::clone(count),
            Arc::clone(datasets),
            writer.clone(),
            max_bytes,
        );
        Some(Arc::new(response_cache))
    }

    /// Returns the writing end of the log.
    pub fn log_writer(&self) -> Arc<dyn LogWriter> {
        Arc::clone(&self.log) as Arc<dyn LogWriter>
    }

    /// Creates a reader of the log.
    pub fn log_reader(&self) -> Arc<dyn LogReader> {
        Arc::new(log_reader::EmbeddedLogReader::new(Arc::clone(&self.log)))
    }
}

/// The schema of `count.db`. The ledger and the tallies are in one file, so that a backup has the same state of both.
const COUNT_SCHEMA: database::Schema =
    database::Schema { file: "count.db", application_id: 0x4F56_434E, sql: include_str!("count.sql") };

/// The schema of `datasets.db`. It is a separate file, so that counting does not wait for an import, and so that a
/// backup may omit it.
const DATASETS_SCHEMA: database::Schema =
    database::Schema { file: "datasets.db", application_id: 0x4F56_4454, sql: include_str!("datasets.sql") };
