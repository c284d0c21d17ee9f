//! Counts of votes, and the windows of time in which votes are counted.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    time::Duration,
};

use crate::{
    ids::{ContestId, UnixMillis},
    vote::{LoggedVote, ProducerKind, Vote},
};

/// The counts of some votes, for example of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// The counts by contest.
    pub contests: BTreeMap<ContestId, ContestCounts>,
}

/// The counts of one contest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContestCounts {
    /// Votes by band.
    pub bands: HashMap<String, u64>,
    /// Votes by band and album. Only votes that name an album are included.
    pub albums: HashMap<(String, String), u64>,
    /// Votes by producer.
    pub producers: BTreeMap<ProducerKind, u64>,
    /// Votes by window of acceptance time. The key is the size and the start of the window.
    pub windows: BTreeMap<(Window, UnixMillis), u64>,
}

impl Counts {
    /// Counts each vote as one.
    pub fn of<'a>(votes: impl IntoIterator<Item = &'a LoggedVote>) -> Self {
        let mut counts = Self::default();
        for logged in votes {
            counts.add(&logged.vote);
        }
        counts
    }

    fn add(&mut self, vote: &Vote) {
        if !self.contests.contains_key(&vote.contest) {
            self.contests.insert(vote.contest.clone(), ContestCounts::default());
        }
        let contest = self.contests.get_mut(&vote.contest).expect("inserted above");
        if let Some(votes) = contest.bands.get_mut(&vote.name) {
            *votes += 1;
        } else {
            contest.bands.insert(vote.name.clone(), 1);
        }
        if let Some(album) = &vote.album {
            *contest.albums.entry((vote.name.clone(), album.clone())).or_default() += 1;
        }
        *contest.producers.entry(vote.producer).or_default() += 1;
        for window in Window::ALL {
            *contest.windows.entry((window, window.start(vote.accepted_at))).or_default() += 1;
        }
    }

    /// Adds other counts to these counts.
    pub fn merge(&mut self, other: Self) {
        for (id, counts) in other.contests {
            let contest = self.contests.entry(id).or_default();
            counts.bands.into_iter().for_each(|(band, votes)| *contest.bands.entry(band).or_default() += votes);
            counts.albums.into_iter().for_each(|(album, votes)| *contest.albums.entry(album).or_default() += votes);
            counts
                .producers
                .into_iter()
                .for_each(|(producer, votes)| *contest.producers.entry(producer).or_default() += votes);
            counts.windows.into_iter().for_each(|(window, votes)| *contest.windows.entry(window).or_default() += votes);
        }
    }

    /// Removes the windows that expire.
    pub fn drop_expiring_windows(&mut self) {
        for contest in self.contests.values_mut() {
            contest.drop_expiring_windows();
        }
    }

    /// Returns the number of all votes.
    pub fn total(&self) -> u64 {
        self.contests.values().map(ContestCounts::total).sum()
    }
}

impl ContestCounts {
    /// Removes the windows that expire.
    pub fn drop_expiring_windows(&mut self) {
        self.windows.retain(|(window, _), _| window.retention().is_none());
    }

    /// Returns the number of votes of the contest. Each vote has exactly one band.
    pub fn total(&self) -> u64 {
        self.bands.values().sum()
    }
}

/// The sizes of the windows in which votes are counted by time of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// 10 milliseconds.
    Centisecond,
    /// 1 second.
    Second,
    /// 1 minute.
    Minute,
}

impl Window {
    /// All sizes.
    pub const ALL: [Self; 3] = [Self::Centisecond, Self::Second, Self::Minute];

    /// Returns the size in milliseconds.
    pub fn millis(self) -> i64 {
        match self {
            Self::Centisecond => 10,
            Self::Second => 1_000,
            Self::Minute => 60_000,
        }
    }

    /// Returns the start of the window that contains this time. The start is a multiple of the size in Unix time.
    pub fn start(self, time: UnixMillis) -> UnixMillis {
        UnixMillis(time.0.div_euclid(self.millis()) * self.millis())
    }

    /// Returns the time after which a window of this size expires from the tallies. `None` means that it never expires.
    pub fn retention(self) -> Option<Duration> {
        match self {
            Self::Centisecond => Some(Duration::from_mins(15)),
            Self::Second => Some(Duration::from_hours(24)),
            Self::Minute => None,
        }
    }

    /// Returns the name of the size: `10ms`, `1s` or `1m`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Centisecond => "10ms",
            Self::Second => "1s",
            Self::Minute => "1m",
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|window| window.as_str() == name)
            .ok_or_else(|| format!("{name:?} is not a window; the windows are 10ms, 1s and 1m"))
    }
}
