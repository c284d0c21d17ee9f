//! The stores of one machine with nothing to install: three `SQLite` files in one folder.
//!
//! | file | holds | written by |
//! |---|---|---|
//! | `log.db` | the vote log: records by partition and offset, and dead letters | [`log`] |
//! | `count.db` | the book and the tallies with their positions | [`book`], [`tallies`] |
//! | `datasets.db` | datasets, imports, and which questions are popular | [`datasets`], [`imports`], [`answers`] |
//! | `secret` | what voters are hashed with | [`folder`] |
//! | `lock` | locked by the one process that may write | [`folder`] |
//!
//! All are in WAL mode with `synchronous=FULL`, and each has one writing thread ([`writer`]) that commits whatever
//! is queued together: an answer follows the fsync of its transaction. A second thread copies the write-ahead log back
//! ([`checkpoint`]). They are apart because acknowledging must not wait for
//! counting, nor counting for a file that is imported. Readers, in this process or another, use short read-only transactions
//! ([`database`]); people's questions are such ([`archive`]).

mod answers;
mod archive;
mod book;
mod checkpoint;
mod database;
mod datasets;
mod folder;
mod imports;
mod log;
mod summary;
mod tallies;
mod writer;

use std::{path::Path, sync::Arc};

use votes::{Answers, Archive, Book, ChunkQueue, Datasets, Imports, Tallies, VoteFeed, VoteQueue, VoterSecret};

use self::{
    database::{Database, Readers},
    folder::Folder,
    imports::EmbeddedImports,
    log::Log,
};
use crate::{
    OpenError,
    meters::{MeteredArchive, MeteredBook, MeteredTallies},
};

pub(crate) use folder::is_in_use;

/// The stores of one folder.
#[derive(Clone)]
pub(crate) struct Embedded {
    pub(crate) log: Arc<Log>,
    pub(crate) book: Arc<dyn Book>,
    pub(crate) tallies: Arc<dyn Tallies>,
    pub(crate) secret: VoterSecret,
    /// If the folder is open for writing: there is one process that answers questions.
    archives: Option<Archives>,
}

/// What people's questions are answered from.
#[derive(Clone)]
struct Archives {
    count: Arc<Readers>,
    datasets: Arc<Readers>,
    writer: writer::Tasks,
    imports: Arc<EmbeddedImports>,
}

impl Embedded {
    /// Opens the folder for writing, making what is not there yet. No other process may have it open for writing.
    pub(crate) fn open(path: &Path, queue_votes: usize) -> Result<Self, OpenError> {
        let folder = Folder::lock(path)?;
        let log_db = Database::open(&folder, &log::SCHEMA)?;
        let count_db = Database::open(&folder, &COUNT_SCHEMA)?;
        let log = Log::writable(&log_db, queue_votes)?;
        let secret = folder.secret(log.is_empty())?;
        let count = writer::Tasks::new("count", &count_db)?;
        let book = book::EmbeddedBook::new(count_db.readers(), Some(count.clone()));
        let tallies = tallies::EmbeddedTallies::new(count_db.readers(), Some(count))?;
        let datasets_db = Database::open(&folder, &DATASETS_SCHEMA)?;
        let writer = writer::Tasks::new("datasets", &datasets_db)?;
        let imports = Arc::new(EmbeddedImports::new(datasets_db.readers(), writer.clone()));
        let archives = Archives { count: count_db.readers(), datasets: datasets_db.readers(), writer, imports };
        Ok(Self {
            log: Arc::new(log),
            book: Arc::new(MeteredBook::new(Arc::new(book))),
            tallies: Arc::new(MeteredTallies::new(Arc::new(tallies))),
            secret,
            archives: Some(archives),
        })
    }

    /// Opens the folder for reading, beside the process that writes it or while there is none.
    pub(crate) fn open_for_reading(path: &Path) -> Result<Self, OpenError> {
        let folder = Folder::read(path)?;
        let readers = |schema| Database::open_for_reading(&folder, schema).map(|database| database.readers());
        let log = Log::read_only(readers(&log::SCHEMA)?)?;
        let count: Arc<Readers> = readers(&COUNT_SCHEMA)?;
        let secret = folder.secret(false)?;
        let (book, tallies) =
            (book::EmbeddedBook::new(Arc::clone(&count), None), tallies::EmbeddedTallies::new(count, None)?);
        Ok(Self { log: Arc::new(log), book: Arc::new(book), tallies: Arc::new(tallies), secret, archives: None })
    }

    /// Looks for damage that reading the stores would not show: torn pages, and ballots without a vote.
    pub(crate) fn damage(path: &Path) -> Result<Vec<String>, OpenError> {
        let folder = Folder::read(path)?;
        let mut damage = Vec::new();
        for schema in [&log::SCHEMA, &COUNT_SCHEMA] {
            let problems = Database::open_for_reading(&folder, schema)?.problems();
            damage.extend(problems.into_iter().map(|problem| format!("{}: {problem}", schema.file)));
        }
        let count = Database::open_for_reading(&folder, &COUNT_SCHEMA)?.readers();
        match count.read_now(book::count_orphans) {
            Ok(0) => {}
            Ok(orphans) => damage.push(format!("count.db: {orphans} ballots have no vote")),
            Err(error) => damage.push(error.to_string()),
        }
        Ok(damage)
    }

    /// What answers people's questions, on connections that are kept or on a new one each.
    pub(crate) fn archive(&self, is_direct: bool) -> Option<Arc<dyn Archive>> {
        let Archives { count, datasets, .. } = self.archives.as_ref()?;
        let archive = archive::EmbeddedArchive::new(Arc::clone(count), Arc::clone(datasets), is_direct);
        Some(Arc::new(MeteredArchive::new(Arc::new(archive), if is_direct { "direct" } else { "pool" })))
    }

    pub(crate) fn datasets(&self) -> Option<Arc<dyn Datasets>> {
        let Archives { datasets, writer, .. } = self.archives.as_ref()?;
        Some(Arc::new(datasets::EmbeddedDatasets::new(Arc::clone(datasets), writer.clone())))
    }

    pub(crate) fn imports(&self) -> Option<Arc<dyn Imports>> {
        Some(Arc::clone(&self.archives.as_ref()?.imports) as Arc<dyn Imports>)
    }

    pub(crate) fn chunks(&self) -> Option<Arc<dyn ChunkQueue>> {
        Some(Arc::clone(&self.archives.as_ref()?.imports) as Arc<dyn ChunkQueue>)
    }

    /// Where answers are kept, at most so many bytes of them.
    pub(crate) fn answers(&self, bytes: usize) -> Option<Arc<dyn Answers>> {
        let Archives { count, datasets, writer, .. } = self.archives.as_ref()?;
        let answers = answers::EmbeddedAnswers::new(Arc::clone(count), Arc::clone(datasets), writer.clone(), bytes);
        Some(Arc::new(answers))
    }

    pub(crate) fn queue(&self) -> Arc<dyn VoteQueue> {
        Arc::clone(&self.log) as Arc<dyn VoteQueue>
    }

    pub(crate) fn feed(&self) -> Arc<dyn VoteFeed> {
        Arc::new(log::Feed::new(Arc::clone(&self.log)))
    }
}

/// `count.db`: the book and the tallies in one file, so that a restored copy is of one moment.
const COUNT_SCHEMA: database::Schema =
    database::Schema { file: "count.db", application_id: 0x4F56_434E, sql: include_str!("count.sql") };

/// `datasets.db`: apart from the counts, so that an import does not stand in counting's way, and can be left out of a backup.
const DATASETS_SCHEMA: database::Schema =
    database::Schema { file: "datasets.db", application_id: 0x4F56_4454, sql: include_str!("datasets.sql") };
