//! A contest's standing, as people and programs read it.

use serde::{Deserialize, Serialize};

use crate::{ContestId, UnixMillis};

/// The standing of one contest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The contest.
    pub contest: ContestId,
    /// Votes counted for it.
    pub total: u64,
    /// Raised by each change of the tallies, of any contest.
    pub version: u64,
    /// The leading bands, most votes first, then by name.
    pub bands: Vec<BandVotes>,
    /// The bands past those.
    pub others: Others,
    /// Votes by door.
    pub doors: std::collections::BTreeMap<String, u64>,
    /// Records of the log that have been counted, or recognised as repeats, over all contests: the sum of the positions.
    pub processed: u64,
}

/// One band's votes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BandVotes {
    /// The band.
    pub name: String,
    /// Its votes.
    pub votes: u64,
    /// Of the contest's total, 0 to 1.
    pub share: f64,
}

/// The bands that are not shown one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Others {
    /// How many bands.
    pub bands: u64,
    /// Their votes together.
    pub votes: u64,
}

/// One album's votes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlbumVotes {
    /// The band.
    pub name: String,
    /// The album.
    pub album: String,
    /// Its votes.
    pub votes: u64,
}

/// The votes of one window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateWindow {
    /// Its start: Unix time in milliseconds, UTC.
    pub start: UnixMillis,
    /// The votes accepted in it.
    pub votes: u64,
}
