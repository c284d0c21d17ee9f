//! The names of the keys. The names are public, because dashboards read the keys: to rename a key breaks dashboards.

use uuid::Uuid;
use votes::{ContestId, UnixMillis, Window};

/// The keys under one prefix.
#[derive(Debug)]
pub(super) struct Keys {
    /// The prefix as a hash tag: `{PREFIX}`. With a hash tag all keys are in one slot of a cluster.
    tag: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { tag: format!("{{{prefix}}}") }
    }

    /// HASH: partition -> the first offset that is not yet counted.
    pub(super) fn position(&self) -> String {
        format!("{}:position", self.tag)
    }

    /// HASH: partition -> `offset:vote_id` of a counted vote below its position. It identifies the vote log.
    pub(super) fn last(&self) -> String {
        format!("{}:last", self.tag)
    }

    /// HASH: partition -> the position up to which its votes are, or were, counted again after the tallies lost data.
    pub(super) fn recount(&self) -> String {
        format!("{}:recount", self.tag)
    }

    /// The prefix of the LISTs with the counts of one large addition, before they are added. The lists are numbered, and
    /// expire.
    pub(super) fn staged(&self, addition: Uuid) -> String {
        format!("{}:staged:{addition}:", self.tag)
    }

    /// STRING: a number that rises with each change of the counts.
    pub(super) fn version(&self) -> String {
        format!("{}:version", self.tag)
    }

    /// STRING: the version of this layout of keys, a number.
    pub(super) fn layout(&self) -> String {
        format!("{}:layout", self.tag)
    }

    /// SET: the contests that have votes.
    pub(super) fn contests(&self) -> String {
        format!("{}:contests", self.tag)
    }

    /// STRING: health checks write and read this key, to check whether the server accepts writes. The key expires.
    pub(super) fn check(&self) -> String {
        format!("{}:check", self.tag)
    }

    /// STRING: the cached response to a query, in the encoding of `response_cache`. The key expires.
    pub(super) fn response(&self, query: &str) -> String {
        format!("{}:response:{query}", self.tag)
    }

    /// ZSET: the queries that have a cached response, by the expiry of that response. The key expires.
    pub(super) fn responses(&self) -> String {
        format!("{}:responses", self.tag)
    }

    /// ZSET: the most popular queries. The score is the number of requests, in which older requests count less. The key expires.
    pub(super) fn popular(&self) -> String {
        format!("{}:popular", self.tag)
    }

    /// HASH: band -> votes.
    pub(super) fn tally(&self, contest: &ContestId) -> String {
        format!("{}:tally:{contest}", self.tag)
    }

    /// HASH: [`album_field`] -> votes.
    pub(super) fn albums(&self, contest: &ContestId) -> String {
        format!("{}:albums:{contest}", self.tag)
    }

    /// HASH: producer -> votes.
    pub(super) fn producers(&self, contest: &ContestId) -> String {
        format!("{}:producers:{contest}", self.tag)
    }

    /// HASH: a window's start -> votes.
    pub(super) fn rate(&self, group: &WindowGroup) -> String {
        format!("{}:rate:{}:{}:{}", self.tag, group.contest, group.window, group.start.0)
    }

    /// ZSET: the groups of one window size. The member is [`WindowGroup::member`] and names a `rate` key. The score is the
    /// start of the group.
    pub(super) fn groups(&self, window: Window) -> String {
        format!("{}:groups:{window}", self.tag)
    }
}

/// Returns the field of an album: a JSON array of band and album, because both may contain any separator.
pub(super) fn album_field(band: &str, album: &str) -> String {
    serde_json::json!([band, album]).to_string()
}

/// Returns the band and the album that a field names.
pub(super) fn parse_album_field(field: &str) -> Result<(String, String), String> {
    serde_json::from_str(field).map_err(|error| format!("{field:?} is not a JSON array of band and album: {error}"))
}

/// The rate windows in one key. They expire together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WindowGroup {
    pub(super) contest: ContestId,
    pub(super) window: Window,
    /// The start of the first window.
    pub(super) start: UnixMillis,
}

impl WindowGroup {
    /// Returns the group that contains the window with this start.
    pub(super) fn of(contest: &ContestId, window: Window, start: UnixMillis) -> Self {
        Self { contest: contest.clone(), window, start: group_start(window, start) }
    }

    /// Returns when the group's key expires, or `None` if it never does. The time depends only on the group's start,
    /// not on when the key was written.
    pub(super) fn expires_at(&self) -> Option<UnixMillis> {
        let retained = i64::try_from(self.window.retention()?.as_millis()).unwrap_or(i64::MAX);
        Some(UnixMillis(self.start.0.saturating_add(group_millis(self.window)).saturating_add(retained)))
    }

    /// Returns the group's name in the ZSET of its window size.
    pub(super) fn member(&self) -> String {
        format!("{}:{}", self.contest, self.start.0)
    }

    /// Parses what [`member`](Self::member) returned.
    pub(super) fn parse_member(window: Window, member: &str) -> Result<Self, String> {
        let group = member.split_once(':').and_then(|(contest, start)| {
            Some(Self { contest: contest.parse().ok()?, window, start: UnixMillis(start.parse().ok()?) })
        });
        group.ok_or_else(|| format!("{member:?} is not a group of windows"))
    }
}

/// Returns the start of the group that contains a time.
pub(super) fn group_start(window: Window, time: UnixMillis) -> UnixMillis {
    let millis = group_millis(window);
    UnixMillis(time.0.div_euclid(millis).saturating_mul(millis))
}

/// Returns the length of a group in milliseconds: 1 000 windows of 10 ms, 3 600 of 1 s, or 1 440 of 1 min.
fn group_millis(window: Window) -> i64 {
    match window {
        Window::Centisecond => 10_000,
        Window::Second => 3_600_000,
        Window::Minute => 86_400_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_have_the_documented_names() {
        let (keys, contest) = (Keys::new("ovation"), ContestId::default());
        assert_eq!(keys.position(), "{ovation}:position");
        assert_eq!(keys.last(), "{ovation}:last");
        assert_eq!(keys.staged(Uuid::nil()), "{ovation}:staged:00000000-0000-0000-0000-000000000000:");
        assert_eq!(keys.version(), "{ovation}:version");
        assert_eq!(keys.tally(&contest), "{ovation}:tally:bands");
        assert_eq!(keys.albums(&contest), "{ovation}:albums:bands");
        assert_eq!(keys.producers(&contest), "{ovation}:producers:bands");
        let noon = UnixMillis(1_795_262_400_000);
        let key = |window| keys.rate(&WindowGroup::of(&contest, window, UnixMillis(noon.0 + 3_725_420)));
        assert_eq!(key(Window::Centisecond), "{ovation}:rate:bands:10ms:1795266120000");
        assert_eq!(key(Window::Second), "{ovation}:rate:bands:1s:1795266000000");
        assert_eq!(key(Window::Minute), "{ovation}:rate:bands:1m:1795219200000");
    }

    #[test]
    fn a_group_expires_a_fixed_time_after_its_end() {
        let group = |window| WindowGroup::of(&ContestId::default(), window, UnixMillis(1_795_262_400_000)).expires_at();
        assert_eq!(group(Window::Centisecond), Some(UnixMillis(1_795_262_400_000 + 10_000 + 15 * 60_000)));
        assert_eq!(group(Window::Second), Some(UnixMillis(1_795_262_400_000 + 3_600_000 + 24 * 3_600_000)));
        assert_eq!(group(Window::Minute), None);
    }

    #[test]
    fn parsing_an_album_field_returns_its_band_and_album() {
        for (band, album) in [("a", "b"), ("AC/DC \"live\"", "[\"x\",\"y\"]"), ("東京事変", "a\u{2028}b\\:")] {
            assert_eq!(parse_album_field(&album_field(band, album)).unwrap(), (band.to_owned(), album.to_owned()));
        }
        assert_eq!(album_field("Pink Floyd", "The Wall"), r#"["Pink Floyd","The Wall"]"#);
    }
}
