//! Files that are imported: how a file is cut into chunks that any number of workers load, and what is in a chunk.
//!
//! A file is comma-separated values (RFC 4180) in UTF-8, with a line of names. It is read twice, and never whole: once as it
//! comes, to find where its records end, and once chunk by chunk.

mod ballot;
mod rows;
mod split;

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use ballot::Ballots;
pub use rows::{CsvRow, rows};
pub use split::{BadFile, Splitter};

use crate::{ContestId, Dataset, DatasetId, UnixMillis};

/// A file that is being imported, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its id.
    pub id: ImportId,
    /// The file's name, as its sender has it.
    pub file: String,
    /// When it was stored.
    pub begun_at: UnixMillis,
    /// What its rows become.
    pub target: Target,
    /// What is in the file.
    pub contents: Contents,
    /// How far it is.
    pub state: ImportState,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// Its length.
    pub bytes: u64,
    /// The names of its columns: they may be empty, or twice.
    pub columns: Vec<String>,
    /// How many rows it has, without the line of names. Some may turn out to be bad.
    pub rows: u64,
    /// Into how many chunks it is cut.
    pub chunks: u32,
}

impl Contents {
    /// A dataset that was made for its rows, as it was then.
    pub fn dataset(&self, id: &DatasetId, generation: u64) -> Dataset {
        Dataset::new(id.clone(), generation, self.columns.clone())
    }
}

/// What rows become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "lowercase")]
pub enum Target {
    /// Rows of a dataset.
    Dataset {
        /// Its name.
        dataset: DatasetId,
        /// Its generation.
        generation: u64,
    },
    /// Votes.
    Votes {
        /// The contest of those rows that name none.
        contest: ContestId,
    },
}

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ImportState {
    /// Chunks are being loaded, or wait for a worker.
    Loading,
    /// Every row is loaded, or is bad.
    Done,
    /// It was given up.
    Failed {
        /// Why.
        problem: String,
    },
}

/// An import's id (UUID version 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImportId(Uuid);

impl ImportId {
    /// A new id.
    #[expect(clippy::new_without_default, reason = "no two are the same")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl FromStr for ImportId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self).map_err(|_| "an import's id is a UUID")
    }
}

impl fmt::Display for ImportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Some whole records of a file, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Whose file it is.
    pub import: ImportId,
    /// Its number, from 0.
    pub number: u32,
    /// Where it is in the file.
    pub bytes: Range<u64>,
    /// The number of its first row, from 0.
    pub first_row: u64,
    /// The line on which that begins, from 1.
    pub first_line: u64,
}

/// What became of a chunk's rows, or of those of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Rows that are there now.
    pub rows: u64,
    /// Rows that are not, because they are bad.
    pub bad: u64,
    /// The first of those.
    pub bad_rows: Vec<BadRow>,
}

impl Loaded {
    /// So many bad rows are told one by one.
    pub const MAX_BAD_ROWS: usize = 100;

    /// A row that is bad.
    pub fn refuse(&mut self, line: u64, problem: impl Into<String>) {
        self.bad += 1;
        if self.bad_rows.len() < Self::MAX_BAD_ROWS {
            self.bad_rows.push(BadRow { line, problem: problem.into() });
        }
    }

    /// Adds what became of rows that come after these.
    pub fn add(&mut self, later: Self) {
        self.rows += later.rows;
        self.bad += later.bad;
        let room = Self::MAX_BAD_ROWS - self.bad_rows.len();
        self.bad_rows.extend(later.bad_rows.into_iter().take(room));
    }
}

/// A row that can't be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
