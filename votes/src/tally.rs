//! The counts of a contest as the results show them.

use crate::ids::{ContestId, UnixMillis};

/// The counts of one contest.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The contest.
    pub contest: ContestId,
    /// The number of votes that were counted for the contest.
    pub total: u64,
    /// A number that rises with each change of the tallies of any contest.
    pub version: u64,
    /// The leading bands, sorted by votes and then by name. The band with the most votes is the first.
    pub bands: Vec<BandVotes>,
    /// The bands that are not among the leading bands.
    pub others: Others,
    /// Votes by producer.
    pub producers: std::collections::BTreeMap<String, u64>,
    /// The sum of the positions T of all partitions: the number of records of the log that were processed, for all
    /// contests. A processed record is counted, or is a duplicate, or is invalid.
    pub processed: u64,
    /// Whether the tallies lost votes that were counted before, and these votes are being added again. Until then, the
    /// counts are too low.
    pub recounting: bool,
}

/// The votes of one band.
#[derive(Clone, Debug, PartialEq)]
pub struct BandVotes {
    /// The band.
    pub name: String,
    /// The number of votes.
    pub votes: u64,
    /// The share of the contest's total, 0 to 1.
    pub share: f64,
}

/// The bands that are not listed one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// The number of these bands.
    pub bands: u64,
    /// The sum of their votes.
    pub votes: u64,
}

/// The votes of one album.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlbumVotes {
    /// The band.
    pub name: String,
    /// The album.
    pub album: String,
    /// The number of votes.
    pub votes: u64,
}

/// The votes of one window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateWindow {
    /// The start of the window.
    pub start: UnixMillis,
    /// The number of votes that were accepted in the window.
    pub votes: u64,
}
