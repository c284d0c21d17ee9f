//! Datasets: tables of text, imported from files.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use votes::ContestId;

/// The name of a dataset: a slug, `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetId(ContestId);

impl DatasetId {
    /// Returns the slug.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl DatasetId {
    /// Derives a dataset's name from the name of a file: `Ballots 2026.csv` becomes `ballots-2026`. Returns `None` if
    /// the file's name has no ASCII letter or digit.
    pub fn of_file(name: &str) -> Option<Self> {
        let stem = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| if stem.is_empty() { name } else { stem });
        let slug_char = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let text: String = stem.chars().map(slug_char).collect();
        let words: Vec<&str> = text.split('-').filter(|word| !word.is_empty()).collect();
        let mut slug = words.join("-");
        slug.truncate(63);
        slug.trim_end_matches('-').parse().ok()
    }

    /// Returns this name with a number: `ballots-2`.
    pub fn numbered(&self, number: u32) -> Option<Self> {
        let end = format!("-{number}");
        let name = self.as_str();
        let length = name.len().min(63 - end.len());
        format!("{}{end}", name[..length].trim_end_matches('-')).parse().ok()
    }
}

impl FromStr for DatasetId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Slugs of contests have the same rule.
        let slug = text
            .parse()
            .map_err(|_| "a dataset's name has 1 to 63 characters of a-z, 0-9 and '-', and does not begin with '-'");
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

/// A dataset, without its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The name of the dataset.
    pub id: DatasetId,
    /// The time at which the dataset was created, in Unix microseconds. The time distinguishes this dataset from a
    /// removed dataset of the same name.
    pub generation: u64,
    /// The names of the columns, as they are in the file. A name may be empty, and may occur more than once.
    pub columns: Vec<String>,
    /// The version of the rows. The version begins at the generation, and rises after rows were added. A response that
    /// was read with a version is current as long as the version is unchanged. No two states of the rows have the same
    /// version.
    pub version: u64,
    /// Whether all rows are loaded.
    pub is_finished: bool,
    /// The number of rows. It is approximate while rows are being loaded.
    pub rows: u64,
}

impl Dataset {
    /// The maximum number of columns.
    pub const MAX_COLUMNS: usize = 500;

    /// The number of columns, from the first column, that have an index after all rows are loaded. `MongoDB` allows 64
    /// indexes per collection, and each index needs memory and disk space.
    pub const INDEXED_COLUMNS: usize = 16;

    /// Returns a dataset that was just created, without rows.
    pub fn new(id: DatasetId, generation: u64, columns: Vec<String>) -> Self {
        Self { id, generation, columns, version: generation, is_finished: false, rows: 0 }
    }

    /// Returns the range of the columns that have an index now.
    pub fn indexed(&self) -> std::ops::Range<usize> {
        let indexed = if self.is_finished { Self::INDEXED_COLUMNS } else { 0 };
        0..self.columns.len().min(indexed)
    }
}

/// A row to load into a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRow {
    /// The number of the row in the file, below 2^63. By default, rows are sorted by this number.
    pub number: u64,
    /// The text of each column, without the character U+0000.
    pub cells: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_dataset_is_derived_from_its_file() {
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
