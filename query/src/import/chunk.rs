//! The contents of a file, the chunks of the file, and how many rows of the chunks were loaded.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dataset::{Dataset, DatasetId};

/// The id of an import (UUID version 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImportId(Uuid);

impl ImportId {
    /// Creates a random id.
    #[expect(clippy::new_without_default, reason = "no two ids are the same")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl FromStr for ImportId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self).map_err(|_| "the id of an import is a UUID")
    }
}

impl fmt::Display for ImportId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The contents of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// The size of the file, in bytes.
    pub bytes: u64,
    /// The names of the columns. A name may be empty, and may occur more than once.
    pub columns: Vec<String>,
    /// The number of rows, without the header line, and with the bad rows.
    pub rows: u64,
    /// The number of chunks.
    pub chunks: u32,
}

impl Contents {
    /// Returns the dataset for these rows as it is just after its creation.
    pub fn dataset(&self, id: &DatasetId, generation: u64) -> Dataset {
        Dataset::new(id.clone(), generation, self.columns.clone())
    }
}

/// Consecutive whole rows of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The import of the file.
    pub import: ImportId,
    /// The number of the chunk, from 0.
    pub number: u32,
    /// The range of the chunk's bytes in the file.
    pub bytes: Range<u64>,
    /// The number of the first row, from 0.
    pub first_row: u64,
    /// The line on which the first row begins, counted from 1.
    pub first_line: u64,
}

/// How many rows of one or more chunks were loaded, and which were bad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// The number of loaded rows.
    pub rows: u64,
    /// The number of bad rows, which are not loaded.
    pub bad: u64,
    /// The first bad rows, at most [`MAX_BAD_ROWS`](Self::MAX_BAD_ROWS).
    pub bad_rows: Vec<BadRow>,
}

impl Loaded {
    /// The maximum number of bad rows that are listed one by one.
    pub const MAX_BAD_ROWS: usize = 100;

    /// Adds a bad row.
    pub fn add_bad_row(&mut self, line: u64, problem: impl Into<String>) {
        self.bad += 1;
        if self.bad_rows.len() < Self::MAX_BAD_ROWS {
            self.bad_rows.push(BadRow { line, problem: problem.into() });
        }
    }

    /// Adds the result of rows that follow these rows in the file.
    pub fn add(&mut self, later: Self) {
        self.rows += later.rows;
        self.bad += later.bad;
        let room = Self::MAX_BAD_ROWS - self.bad_rows.len();
        self.bad_rows.extend(later.bad_rows.into_iter().take(room));
    }
}

/// A row that can't be loaded, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// The line on which the row begins, counted from 1.
    pub line: u64,
    /// What is wrong with the row.
    pub problem: String,
}

/// Returns the number of line ends in these bytes.
pub(super) fn count_newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
