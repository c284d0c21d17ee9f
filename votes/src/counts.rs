//! The fold: votes become counts.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    time::Duration,
};

use crate::{ContestId, DoorKind, LoggedVote, UnixMillis, Vote};

/// What a batch adds to the tallies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// By contest.
    pub contests: BTreeMap<ContestId, ContestCounts>,
}

/// What a batch adds to one contest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContestCounts {
    /// Votes by band.
    pub bands: HashMap<String, u64>,
    /// Votes by band and album, of votes that name an album.
    pub albums: HashMap<(String, String), u64>,
    /// Votes by door.
    pub doors: BTreeMap<DoorKind, u64>,
    /// Votes by window of acceptance time: the window's size and start.
    pub windows: BTreeMap<(Window, UnixMillis), u64>,
}

impl Counts {
    /// Counts votes, each as one.
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
        *contest.doors.entry(vote.door).or_default() += 1;
        for window in Window::ALL {
            *contest.windows.entry((window, window.start(vote.accepted_at))).or_default() += 1;
        }
    }

    /// Adds other counts to these.
    pub fn merge(&mut self, other: Self) {
        for (id, counts) in other.contests {
            let contest = self.contests.entry(id).or_default();
            counts.bands.into_iter().for_each(|(band, votes)| *contest.bands.entry(band).or_default() += votes);
            counts.albums.into_iter().for_each(|(album, votes)| *contest.albums.entry(album).or_default() += votes);
            counts.doors.into_iter().for_each(|(door, votes)| *contest.doors.entry(door).or_default() += votes);
            counts.windows.into_iter().for_each(|(window, votes)| *contest.windows.entry(window).or_default() += votes);
        }
    }

    /// Forgets the windows that are not kept for ever.
    pub fn keep_permanent(&mut self) {
        for contest in self.contests.values_mut() {
            contest.keep_permanent();
        }
    }

    /// All votes in these counts.
    pub fn total(&self) -> u64 {
        self.contests.values().map(ContestCounts::total).sum()
    }
}

impl ContestCounts {
    /// As [`Counts::keep_permanent`].
    pub fn keep_permanent(&mut self) {
        self.windows.retain(|(window, _), _| window.kept_for().is_none());
    }

    /// All votes of the contest: each has exactly one band.
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

    /// The size, in milliseconds.
    pub fn millis(self) -> i64 {
        match self {
            Self::Centisecond => 10,
            Self::Second => 1_000,
            Self::Minute => 60_000,
        }
    }

    /// The start of the window that has this time: windows divide UTC evenly.
    pub fn start(self, time: UnixMillis) -> UnixMillis {
        UnixMillis(time.0.div_euclid(self.millis()) * self.millis())
    }

    /// How long a window is kept; `None` is for ever.
    pub fn kept_for(self) -> Option<Duration> {
        match self {
            Self::Centisecond => Some(Duration::from_mins(15)),
            Self::Second => Some(Duration::from_hours(24)),
            Self::Minute => None,
        }
    }

    /// The size's name: `10ms`, `1s`, `1m`.
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
            .ok_or_else(|| format!("{name:?} is no window; there are 10ms, 1s and 1m"))
    }
}
