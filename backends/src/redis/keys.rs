//! The names of the keys. They are public: dashboards read them, so a change of one is a change for people.

use votes::{ContestId, UnixMillis, Window};

/// The keys under one prefix.
#[derive(Debug)]
pub(super) struct Keys {
    /// The prefix as a hash tag, so that all keys are in one slot.
    tag: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { tag: format!("{{{prefix}}}") }
    }

    /// HASH: partition -> the first offset not yet counted.
    pub(super) fn position(&self) -> String {
        format!("{}:position", self.tag)
    }

    /// A number, raised by each change.
    pub(super) fn version(&self) -> String {
        format!("{}:version", self.tag)
    }

    /// SET: the contests that have votes.
    pub(super) fn contests(&self) -> String {
        format!("{}:contests", self.tag)
    }

    /// What is written and read to see that the server takes writes.
    pub(super) fn check(&self) -> String {
        format!("{}:check", self.tag)
    }

    /// STRING: the answer to a question, in the form of `answers`. It expires, as all that is not the tallies'.
    pub(super) fn answer(&self, question: &str) -> String {
        format!("{}:answer:{question}", self.tag)
    }

    /// ZSET: the questions that have answers, by when these expire.
    pub(super) fn answers(&self) -> String {
        format!("{}:answers", self.tag)
    }

    /// ZSET: the questions that are asked most, by how much they are.
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

    /// HASH: door -> votes.
    pub(super) fn doors(&self, contest: &ContestId) -> String {
        format!("{}:doors:{contest}", self.tag)
    }

    /// HASH: a window's start -> votes.
    pub(super) fn rate(&self, group: &Group) -> String {
        format!("{}:rate:{}:{}:{}", self.tag, group.contest, group.window, group.start.0)
    }

    /// ZSET: the groups of one size of window, [`Group::member`] by start. It says which `rate` keys there are.
    pub(super) fn groups(&self, window: Window) -> String {
        format!("{}:groups:{window}", self.tag)
    }
}

/// The field of an album: a JSON array of band and album, since either may contain any separator.
pub(super) fn album_field(band: &str, album: &str) -> String {
    serde_json::json!([band, album]).to_string()
}

/// The band and the album of a field.
pub(super) fn read_album_field(field: &str) -> Result<(String, String), String> {
    serde_json::from_str(field).map_err(|error| format!("{field:?} is no JSON array of band and album: {error}"))
}

/// The windows of one key: they expire together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) contest: ContestId,
    pub(super) window: Window,
    /// The start of its first window.
    pub(super) start: UnixMillis,
}

impl Group {
    /// The group of the window that begins at `start`.
    pub(super) fn of(contest: &ContestId, window: Window, start: UnixMillis) -> Self {
        Self { contest: contest.clone(), window, start: group_start(window, start) }
    }

    /// When its key expires: a fixed time, whenever it is written. `None` is never.
    pub(super) fn expires(&self) -> Option<UnixMillis> {
        let kept = i64::try_from(self.window.kept_for()?.as_millis()).unwrap_or(i64::MAX);
        Some(UnixMillis(self.start.0.saturating_add(group_millis(self.window)).saturating_add(kept)))
    }

    /// Its name among the groups of its size.
    pub(super) fn member(&self) -> String {
        format!("{}:{}", self.contest, self.start.0)
    }

    /// The group that a member names.
    pub(super) fn of_member(window: Window, member: &str) -> Result<Self, String> {
        let named = member.split_once(':').and_then(|(contest, start)| {
            Some(Self { contest: contest.parse().ok()?, window, start: UnixMillis(start.parse().ok()?) })
        });
        named.ok_or_else(|| format!("{member:?} is no group of windows"))
    }
}

/// The start of the group that has a time.
pub(super) fn group_start(window: Window, time: UnixMillis) -> UnixMillis {
    let millis = group_millis(window);
    UnixMillis(time.0.div_euclid(millis).saturating_mul(millis))
}

/// How much time is in one key, in milliseconds: 1 000 windows of 10 ms, 3 600 seconds, 1 440 minutes.
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
    fn the_names_are_those_that_dashboards_read() {
        let (keys, contest) = (Keys::new("ovation"), ContestId::default());
        assert_eq!(keys.position(), "{ovation}:position");
        assert_eq!(keys.version(), "{ovation}:version");
        assert_eq!(keys.tally(&contest), "{ovation}:tally:bands");
        assert_eq!(keys.albums(&contest), "{ovation}:albums:bands");
        assert_eq!(keys.doors(&contest), "{ovation}:doors:bands");
        let noon = UnixMillis(1_795_262_400_000);
        let key = |window| keys.rate(&Group::of(&contest, window, UnixMillis(noon.0 + 3_725_420)));
        assert_eq!(key(Window::Centisecond), "{ovation}:rate:bands:10ms:1795266120000");
        assert_eq!(key(Window::Second), "{ovation}:rate:bands:1s:1795266000000");
        assert_eq!(key(Window::Minute), "{ovation}:rate:bands:1m:1795219200000");
    }

    #[test]
    fn a_group_expires_a_fixed_time_after_its_end() {
        let group = |window| Group::of(&ContestId::default(), window, UnixMillis(1_795_262_400_000)).expires();
        assert_eq!(group(Window::Centisecond), Some(UnixMillis(1_795_262_400_000 + 10_000 + 15 * 60_000)));
        assert_eq!(group(Window::Second), Some(UnixMillis(1_795_262_400_000 + 3_600_000 + 24 * 3_600_000)));
        assert_eq!(group(Window::Minute), None);
    }

    #[test]
    fn a_field_of_an_album_is_read_back() {
        for (band, album) in [("a", "b"), ("AC/DC \"live\"", "[\"x\",\"y\"]"), ("東京事変", "a\u{2028}b\\:")] {
            assert_eq!(read_album_field(&album_field(band, album)).unwrap(), (band.to_owned(), album.to_owned()));
        }
        assert_eq!(album_field("Pink Floyd", "The Wall"), r#"["Pink Floyd","The Wall"]"#);
    }
}
