//! Datasets: tables of text that came from files. They are read through the [`Archive`](super::Archive).

use std::{fmt, str::FromStr};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Store;
use crate::{ContestId, StoreError};

/// Where datasets are made and filled. Any number of workers may load rows of one at a time.
#[async_trait]
pub trait Datasets: Store {
    /// Makes an empty dataset. `None` if there is one of this name.
    async fn create(&self, id: &DatasetId, columns: Vec<String>) -> Result<Option<Dataset>, StoreError>;

    /// Adds rows, durably, and raises the version. A row whose number is there already stays as it is, so loading a chunk twice is
    /// loading it once. Whether the dataset was there: one of another generation is another dataset.
    async fn load(&self, dataset: &Dataset, rows: Vec<DatasetRow>) -> Result<bool, StoreError>;

    /// Says that all rows are loaded, and makes the indexes. Whether the dataset was there.
    async fn finish(&self, dataset: &Dataset) -> Result<bool, StoreError>;

    /// The dataset of this name, as it is now.
    async fn describe(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError>;

    /// All datasets, by name.
    async fn list(&self) -> Result<Vec<Dataset>, StoreError>;

    /// Deletes a dataset with its rows. Whether there was one.
    async fn remove(&self, id: &DatasetId) -> Result<bool, StoreError>;
}

/// A dataset's name: a slug, `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetId(ContestId);

impl DatasetId {
    /// The slug.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl DatasetId {
    /// The name that a file's name gives: `Ballots 2026.csv` is `ballots-2026`. `None` if nothing of it can be in one.
    pub fn of_file(name: &str) -> Option<Self> {
        let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| if stem.is_empty() { name } else { stem });
        let kept = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let text: String = stem.chars().map(kept).collect();
        let words: Vec<&str> = text.split('-').filter(|word| !word.is_empty()).collect();
        let mut slug = words.join("-");
        slug.truncate(63);
        slug.trim_end_matches('-').parse().ok()
    }

    /// This name and a number: `ballots-2`.
    pub fn numbered(&self, number: u32) -> Option<Self> {
        let end = format!("-{number}");
        let name = self.as_str();
        let kept = name.len().min(63 - end.len());
        format!("{}{end}", name[..kept].trim_end_matches('-')).parse().ok()
    }
}

impl FromStr for DatasetId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The rule is that of contests.
        let slug = text.parse().map_err(|_| "a dataset is 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'");
        slug.map(Self)
    }
}

impl TryFrom<String> for DatasetId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DatasetId> for String {
    fn from(id: DatasetId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub id: DatasetId,
    /// When it was made, in Unix microseconds: it tells this dataset from one of its name that was deleted.
    pub generation: u64,
    /// The names of its columns, as they are in the file: they may be empty, or twice.
    pub columns: Vec<String>,
    /// Begins at the generation and is raised after rows were added: what was read under a version is current as long as that
    /// stands. It is never told again for other rows.
    pub version: u64,
    /// Whether all its rows are there.
    pub is_finished: bool,
    /// How many rows there are, more or less while they are being loaded.
    pub rows: u64,
}

impl Dataset {
    /// The most columns.
    pub const MAX_COLUMNS: usize = 500;

    /// So many columns, from the first, have an index once all rows are there. Servers allow 64 indexes; each costs room.
    pub const INDEXED_COLUMNS: usize = 16;

    /// One that was just made.
    pub fn new(id: DatasetId, generation: u64, columns: Vec<String>) -> Self {
        Self { id, generation, columns, version: generation, is_finished: false, rows: 0 }
    }

    /// The columns that have an index.
    pub fn indexed(&self) -> std::ops::Range<usize> {
        let indexed = if self.is_finished { Self::INDEXED_COLUMNS } else { 0 };
        0..self.columns.len().min(indexed)
    }
}

/// A row to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRow {
    /// Its number in the file, below 2^63: rows are shown in this order.
    pub number: u64,
    /// A text for each column, without the character U+0000.
    pub cells: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_its_dataset_a_name() {
        for (file, name) in [
            ("Ballots 2026.csv", Some("ballots-2026")),
            ("/home/me/votes.final.CSV", Some("votes-final")),
            ("C:\\data\\__b\u{e4}nds__.csv", Some("b-nds")),
            ("\u{e4}.csv", None),
            (".csv", Some("csv")),
            ("", None),
        ] {
            assert_eq!(DatasetId::of_file(file).as_ref().map(DatasetId::as_str), name, "{file}");
        }
        let long = DatasetId::of_file(&"ab-".repeat(40)).unwrap();
        assert_eq!(long.as_str().len(), 62);
        assert_eq!(long.numbered(12).unwrap().as_str(), format!("{}ab-12", "ab-".repeat(19)));
        assert_eq!("a".parse::<DatasetId>().unwrap().numbered(2).unwrap().as_str(), "a-2");
    }
}
