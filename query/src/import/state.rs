//! An import: the file, what its rows become, and the state of the import.

use serde::{Deserialize, Serialize};
use votes::{ContestId, UnixMillis};

use super::chunk::{Contents, ImportId};
use crate::dataset::DatasetId;

/// A file that is being imported or was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// The id of the import.
    pub id: ImportId,
    /// The name of the file on the client.
    pub file: String,
    /// The time at which the file was stored.
    pub begun_at: UnixMillis,
    /// What the rows become.
    pub target: Target,
    /// The contents of the file.
    pub contents: Contents,
    /// The state of the import.
    pub state: ImportState,
}

/// What the rows of an import become.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "lowercase")]
pub enum Target {
    /// Rows of a dataset.
    Dataset {
        /// The name of the dataset.
        dataset: DatasetId,
        /// The generation of the dataset.
        generation: u64,
    },
    /// Votes.
    Votes {
        /// The contest of the rows without a contest.
        contest: ContestId,
    },
}

/// The state of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ImportState {
    /// Chunks are being loaded, or wait for a worker.
    Loading,
    /// All rows except the bad rows are loaded.
    Done,
    /// The import ended before all rows were loaded.
    Failed {
        /// The reason why the import failed.
        problem: String,
    },
}
