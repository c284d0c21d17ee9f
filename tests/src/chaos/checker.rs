//! The independent checker: compares what clients were told with what the stores hold.
//!
//! It works on a [`Snapshot`] that was read from the stores without any of the system's adapters, and counts anew from
//! definitions, not with the system's code. What it proves, if it finds nothing:
//!
//! - every acknowledged vote is on the log where its receipt says, and the log has nothing that nobody cast;
//! - each ballot that is on the log is in the book exactly once: the copy at the lowest offset, unchanged;
//! - the tallies are that book, counted: bands, albums, doors and windows of time;
//! - the positions and checkpoints are the log's ends, so that nothing is left to be counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::{self, Debug, Display},
};

use uuid::Uuid;

use super::told::{Cast, Told};

/// What the stores held at one moment at which nothing was on its way.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub log: Vec<Record>,
    /// The log's end, by partition.
    pub ends: BTreeMap<i32, i64>,
    /// How many dead letters there are.
    pub dead: usize,
    pub book: Vec<Document>,
    /// By partition.
    pub checkpoints: BTreeMap<i32, i64>,
    /// Every hash under the tallies' prefix: its fields, by its name without the prefix.
    pub hashes: BTreeMap<String, BTreeMap<String, String>>,
    /// When it was taken, in Unix milliseconds: windows expire.
    pub taken_at: i64,
}

/// A record of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Unix time in milliseconds.
    pub time: i64,
    pub key: String,
    pub vote: Vote,
}

/// A document of the book.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub id: String,
    pub partition: i32,
    pub offset: i64,
    pub accepted_at: i64,
    pub vote: Vote,
}

/// What both say of a vote.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    pub id: Uuid,
    pub contest: String,
    pub name: String,
    pub album: Option<String>,
    pub year: Option<u32>,
    /// The voter's HMAC, as hexadecimal digits.
    pub voter: Option<String>,
    pub door: String,
}

/// How a promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A vote was never acknowledged, although its client kept trying.
    NotAcknowledged,
    /// A receipt's place on the log does not have the vote.
    LostFromLog,
    /// The log has a vote that nobody cast, or not like that.
    Forged,
    /// The log has a vote as accepted more often than it was sent.
    TooManyCopies,
    /// A ballot that is on the log is not in the book.
    LostFromBook,
    /// The book has a ballot that is not on the log.
    Foreign,
    /// The book has a ballot twice.
    DoubledInBook,
    /// The book has another copy of the ballot than the first, or changed it.
    WrongInBook,
    /// The tallies have another number than the book.
    WrongTally,
    /// A store has not counted as far as the log reaches, or further.
    WrongPosition,
    /// A vote was taken for poison.
    Dead,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.what)
    }
}

/// Everything that is wrong.
pub fn check(told: &Told, snapshot: &Snapshot) -> Vec<Violation> {
    let mut checker = Checker { told, snapshot, violations: Vec::new() };
    checker.receipts();
    checker.log();
    checker.book();
    checker.tallies();
    checker.positions();
    checker.violations
}

struct Checker<'a> {
    told: &'a Told,
    snapshot: &'a Snapshot,
    violations: Vec<Violation>,
}

impl Checker<'_> {
    fn violate(&mut self, kind: Kind, what: impl Into<String>) {
        self.violations.push(Violation { kind, what: what.into() });
    }

    /// Whatever was acknowledged is on the log, where and when the receipt says.
    fn receipts(&mut self) {
        let log: HashMap<(i32, i64), &Record> =
            self.snapshot.log.iter().map(|record| ((record.partition, record.offset), record)).collect();
        for cast in &self.told.casts {
            if let Some(reason) = &cast.refused {
                self.violate(Kind::NotAcknowledged, format!("{} was refused for good: {reason}", cast.id));
            } else if cast.receipts.is_empty() {
                self.violate(Kind::NotAcknowledged, format!("{} after {} attempts", cast.id, cast.attempts));
            }
            for receipt in &cast.receipts {
                let found = log.get(&(receipt.partition, receipt.offset));
                let is_there = found.is_some_and(|record| {
                    (record.vote.id, record.time, record.vote.door.as_str())
                        == (cast.id, receipt.accepted_at, receipt.door)
                });
                if !is_there {
                    let what = format!("{} was acknowledged as {receipt:?}, and there is {found:?}", cast.id);
                    self.violate(Kind::LostFromLog, what);
                }
            }
        }
    }

    /// Whatever is on the log was cast, and not more often than it was sent.
    fn log(&mut self) {
        let casts = self.told.by_id();
        // What a door took once, Kafka's client may write twice: a time-out of one vote makes it begin anew under another
        // epoch, and others that were on their way are sent again (https://github.com/confluentinc/librdkafka/issues/4953).
        // Such copies are of one acceptance, and to the counting as any others.
        let mut copies: HashMap<Uuid, HashSet<(i64, &str)>> = HashMap::new();
        for record in &self.snapshot.log {
            let is_cast = casts
                .get(&record.vote.id)
                .is_some_and(|cast| record.key == self.told.ballot(cast) && is_vote(&record.vote, cast, self.told));
            if !is_cast {
                self.violate(Kind::Forged, format!("nobody cast {record:?}"));
            }
            copies.entry(record.vote.id).or_default().insert((record.time, &record.vote.door));
        }
        for cast in &self.told.casts {
            let copies = copies.get(&cast.id).map_or(0, HashSet::len);
            if copies > cast.attempts {
                let what = format!("{} was sent {} times and was accepted {copies} times", cast.id, cast.attempts);
                self.violate(Kind::TooManyCopies, what);
            }
        }
        if self.snapshot.dead > 0 {
            self.violate(Kind::Dead, format!("{} dead letters, and nobody sent poison", self.snapshot.dead));
        }
    }

    /// The first copy of each ballot is in the book, and nothing else.
    fn book(&mut self) {
        let mut firsts: HashMap<&str, &Record> = HashMap::new();
        for record in &self.snapshot.log {
            let first = firsts.entry(&record.key).or_insert(record);
            if record.offset < first.offset {
                *first = record;
            }
        }
        let (mut ballots, mut ids, mut places) = (HashSet::new(), HashSet::new(), HashSet::new());
        for document in &self.snapshot.book {
            let place = (document.partition, document.offset);
            if !ballots.insert(document.id.as_str()) | !ids.insert(document.vote.id) | !places.insert(place) {
                self.violate(Kind::DoubledInBook, format!("{document:?}"));
            }
            match firsts.get(document.id.as_str()) {
                None => self.violate(Kind::Foreign, format!("not on the log: {document:?}")),
                Some(first) => {
                    let is_same = (first.partition, first.offset, first.time, &first.vote)
                        == (document.partition, document.offset, document.accepted_at, &document.vote);
                    if !is_same {
                        self.violate(Kind::WrongInBook, format!("{document:?} is on the log as {first:?}"));
                    }
                }
            }
        }
        for (ballot, first) in firsts {
            if !ballots.contains(ballot) {
                self.violate(Kind::LostFromBook, format!("{ballot} of {first:?}"));
            }
        }
    }

    /// The hashes are the book, counted.
    fn tallies(&mut self) {
        let mut expected: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for document in &self.snapshot.book {
            for (hash, field) in counted_in(document) {
                *expected.entry(hash).or_default().entry(field).or_default() += 1;
            }
        }
        expected.retain(|hash, _| !may_have_expired(hash, self.snapshot.taken_at));
        let nothing = BTreeMap::new();
        let counts = |hash: &String| {
            ["tally:", "albums:", "doors:", "rate:"].iter().any(|kind| hash.starts_with(kind))
                && !may_have_expired(hash, self.snapshot.taken_at)
        };
        let found: HashSet<&String> = self.snapshot.hashes.keys().filter(|hash| counts(hash)).collect();
        let mut hashes: Vec<&String> = found.iter().copied().chain(expected.keys()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        for hash in hashes {
            let expected: BTreeMap<String, String> = expected
                .get(hash)
                .into_iter()
                .flatten()
                .map(|(field, votes)| (field.clone(), votes.to_string()))
                .collect();
            self.compare(Kind::WrongTally, hash, &expected, self.snapshot.hashes.get(hash).unwrap_or(&nothing));
        }
    }

    /// Everything on the log is counted, in both stores.
    fn positions(&mut self) {
        let nothing = BTreeMap::new();
        let text = |positions: &BTreeMap<i32, i64>| -> BTreeMap<String, String> {
            let begun = positions.iter().filter(|(_, position)| **position > 0);
            begun.map(|(partition, position)| (partition.to_string(), position.to_string())).collect()
        };
        let ends = text(&self.snapshot.ends);
        let positions = self.snapshot.hashes.get("position").unwrap_or(&nothing);
        self.compare(Kind::WrongPosition, "position", &ends, positions);
        self.compare(Kind::WrongPosition, "checkpoints", &ends, &text(&self.snapshot.checkpoints));
    }

    fn compare<T: PartialEq + Debug>(
        &mut self,
        kind: Kind,
        of: &str,
        expected: &BTreeMap<String, T>,
        found: &BTreeMap<String, T>,
    ) {
        let mut fields: Vec<&String> = expected.keys().chain(found.keys()).collect();
        fields.sort_unstable();
        fields.dedup();
        for field in fields {
            let (expected, found) = (expected.get(field), found.get(field));
            if expected != found {
                self.violate(kind, format!("{of}, {field:?}: {found:?} instead of {expected:?}"));
            }
        }
    }
}

fn is_vote(vote: &Vote, cast: &Cast, told: &Told) -> bool {
    let voter = cast.voter.as_ref().map(|voter| told.hash(cast.contest, voter));
    (vote.contest.as_str(), &vote.name, &vote.album, vote.year, &vote.voter)
        == (cast.contest, &cast.name, &cast.album, cast.year, &voter)
        && ["rest", "grpc"].contains(&vote.door.as_str())
}

/// The windows: name, size, size of the group that shares a hash, and how long they are kept; in milliseconds.
const WINDOWS: [(&str, i64, i64, Option<i64>); 3] = [
    ("10ms", 10, 10_000, Some(15 * 60_000)),
    ("1s", 1_000, 3_600_000, Some(24 * 3_600_000)),
    ("1m", 60_000, 86_400_000, None),
];

/// The hash and the field of everything that a vote is counted in.
fn counted_in(document: &Document) -> Vec<(String, String)> {
    let Vote { contest, name, album, door, .. } = &document.vote;
    let mut counted = vec![(format!("tally:{contest}"), name.clone()), (format!("doors:{contest}"), door.clone())];
    if let Some(album) = album {
        counted.push((format!("albums:{contest}"), serde_json::json!([name, album]).to_string()));
    }
    for (window, size, group, _) in WINDOWS {
        let start = |size: i64| document.accepted_at.div_euclid(size) * size;
        counted.push((format!("rate:{contest}:{window}:{}", start(group)), start(size).to_string()));
    }
    counted
}

/// Whether a hash of windows may be gone, or going, when the stores were read.
fn may_have_expired(hash: &str, now: i64) -> bool {
    const MARGIN: i64 = 60_000;
    let mut parts = hash.rsplit(':');
    let (Some(start), Some(window)) = (parts.next().and_then(|start| start.parse::<i64>().ok()), parts.next()) else {
        return false;
    };
    WINDOWS.iter().any(|(name, _, _, kept)| *name == window && kept.is_some_and(|kept| start + kept < now + MARGIN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::told::{ONCE, OPEN, Receipt};

    const NOON: i64 = 1_795_262_400_000;

    /// A small history that is right: two votes of which one was sent and acknowledged twice, and a voter who voted twice.
    fn history() -> (Told, Snapshot) {
        let mut told = Told { casts: Vec::new(), secret: b"sixteen bytes or more".to_vec() };
        let mut snapshot = Snapshot { taken_at: NOON + 5_000, ..Snapshot::default() };
        cast(&mut told, OPEN, "Queen", Some("Jazz"), None);
        cast(&mut told, OPEN, "Björk", None, None);
        cast(&mut told, ONCE, "Queen", None, Some("ann"));
        cast(&mut told, ONCE, "Björk", None, Some("ann"));
        for (offset, index) in [0, 1, 0, 2, 3].into_iter().enumerate() {
            log(&mut told, &mut snapshot, index, i64::try_from(offset).unwrap());
        }
        let firsts = [0, 1, 3];
        snapshot.book = firsts.iter().map(|&index| document(&snapshot.log[index])).collect();
        snapshot.ends = BTreeMap::from([(0, 0), (7, 5)]);
        snapshot.checkpoints = BTreeMap::from([(7, 5)]);
        let hash = |fields: &[(&str, &str)]| -> BTreeMap<String, String> {
            fields.iter().map(|&(field, votes)| (field.to_owned(), votes.to_owned())).collect()
        };
        for (name, fields) in [
            ("position", hash(&[("7", "5")])),
            ("tally:bands", hash(&[("Queen", "1"), ("Björk", "1")])),
            ("albums:bands", hash(&[(r#"["Queen","Jazz"]"#, "1")])),
            ("doors:bands", hash(&[("rest", "2")])),
            ("tally:finals", hash(&[("Queen", "1")])),
            ("doors:finals", hash(&[("rest", "1")])),
            ("rate:bands:10ms:1795262400000", hash(&[("1795262400000", "2")])),
            ("rate:bands:1s:1795262400000", hash(&[("1795262400000", "2")])),
            ("rate:bands:1m:1795219200000", hash(&[("1795262400000", "2")])),
            ("rate:finals:10ms:1795262400000", hash(&[("1795262400000", "1")])),
            ("rate:finals:1s:1795262400000", hash(&[("1795262400000", "1")])),
            ("rate:finals:1m:1795219200000", hash(&[("1795262400000", "1")])),
        ] {
            snapshot.hashes.insert(name.to_owned(), fields);
        }
        (told, snapshot)
    }

    fn cast(told: &mut Told, contest: &'static str, name: &str, album: Option<&str>, voter: Option<&str>) {
        told.casts.push(Cast {
            id: Uuid::now_v7(),
            contest,
            name: name.to_owned(),
            album: album.map(str::to_owned),
            year: Some(1978),
            voter: voter.map(str::to_owned),
            attempts: 0,
            receipts: Vec::new(),
            refused: None,
        });
    }

    /// Sends a cast, which is logged and acknowledged.
    fn log(told: &mut Told, snapshot: &mut Snapshot, index: usize, offset: i64) {
        let cast = &mut told.casts[index];
        cast.attempts += 1;
        cast.receipts.push(Receipt { door: "rest", partition: 7, offset, accepted_at: NOON + offset });
        let cast = &told.casts[index];
        let vote = Vote {
            id: cast.id,
            contest: cast.contest.to_owned(),
            name: cast.name.clone(),
            album: cast.album.clone(),
            year: cast.year,
            voter: cast.voter.as_ref().map(|voter| told.hash(cast.contest, voter)),
            door: "rest".to_owned(),
        };
        snapshot.log.push(Record { partition: 7, offset, time: NOON + offset, key: told.ballot(cast), vote });
    }

    fn document(record: &Record) -> Document {
        Document {
            id: record.key.clone(),
            partition: record.partition,
            offset: record.offset,
            accepted_at: record.time,
            vote: record.vote.clone(),
        }
    }

    /// The kinds of what is found after something was planted.
    fn found(plant: impl FnOnce(&mut Told, &mut Snapshot)) -> Vec<Kind> {
        let (mut told, mut snapshot) = history();
        plant(&mut told, &mut snapshot);
        let mut kinds: Vec<Kind> = check(&told, &snapshot).into_iter().map(|violation| violation.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn set(snapshot: &mut Snapshot, hash: &str, field: &str, value: &str) {
        snapshot.hashes.entry(hash.to_owned()).or_default().insert(field.to_owned(), value.to_owned());
    }

    #[test]
    fn a_right_history_has_no_violation() {
        let (told, snapshot) = history();
        assert_eq!(check(&told, &snapshot), []);
    }

    #[test]
    fn a_vote_that_was_never_acknowledged_is_found() {
        assert_eq!(found(|told, _| told.casts[1].receipts.clear()), [Kind::NotAcknowledged]);
        assert_eq!(found(|told, _| told.casts[1].refused = Some("422".to_owned())), [Kind::NotAcknowledged]);
    }

    #[test]
    fn an_acknowledged_vote_that_the_log_lost_is_found() {
        // Lost with all its traces: only its client knows of it.
        let lost = found(|_, snapshot| {
            snapshot.log.remove(1);
            snapshot.book.remove(1);
            snapshot.hashes.get_mut("tally:bands").unwrap().remove("Björk");
            for (hash, fields) in &mut snapshot.hashes {
                if hash.starts_with("rate:bands") || hash == "doors:bands" {
                    for votes in fields.values_mut() {
                        *votes = "1".to_owned();
                    }
                }
            }
        });
        assert_eq!(lost, [Kind::LostFromLog]);
        let elsewhere = found(|told, _| told.casts[1].receipts[0].offset = 0);
        assert_eq!(elsewhere, [Kind::LostFromLog]);
        let at_another_time = found(|told, _| told.casts[1].receipts[0].accepted_at += 1);
        assert_eq!(at_another_time, [Kind::LostFromLog]);
    }

    #[test]
    fn a_record_that_nobody_cast_is_found() {
        assert_eq!(found(|_, snapshot| snapshot.log[2].vote.id = Uuid::now_v7()), [Kind::LostFromLog, Kind::Forged]);
        assert_eq!(found(|_, snapshot| snapshot.log[2].vote.name = "Abba".to_owned()), [Kind::Forged]);
        let under_another_key = found(|_, snapshot| snapshot.log[4].key = "finals|of somebody else".to_owned());
        assert_eq!(under_another_key, [Kind::Forged, Kind::LostFromBook]);
    }

    #[test]
    fn a_copy_more_than_was_sent_is_found() {
        let copies = found(|told, _| told.casts[0].attempts = 1);
        assert_eq!(copies, [Kind::TooManyCopies]);
    }

    #[test]
    fn a_copy_that_kafkas_client_made_is_none_of_the_clients() {
        let copied = |told: &mut Told, snapshot: &mut Snapshot| {
            let mut copy = snapshot.log[1].clone();
            copy.offset = 5;
            snapshot.log.push(copy);
            snapshot.ends.insert(7, 6);
            snapshot.checkpoints.insert(7, 6);
            set(snapshot, "position", "7", "6");
            assert_eq!(told.casts[1].attempts, 1);
        };
        assert_eq!(found(copied), []);
        let counted = found(|told, snapshot| {
            copied(told, snapshot);
            set(snapshot, "tally:bands", "Björk", "2");
        });
        assert_eq!(counted, [Kind::WrongTally]);
    }

    #[test]
    fn a_dead_letter_is_found() {
        assert_eq!(found(|_, snapshot| snapshot.dead = 1), [Kind::Dead]);
    }

    #[test]
    fn a_vote_that_is_not_in_the_book_is_found() {
        let lost = found(|_, snapshot| drop(snapshot.book.remove(0)));
        assert_eq!(lost, [Kind::LostFromBook, Kind::WrongTally]);
    }

    #[test]
    fn a_ballot_that_is_twice_in_the_book_is_found() {
        let doubled = found(|_, snapshot| {
            let second = document(&snapshot.log[2]);
            snapshot.book.push(second);
        });
        assert_eq!(doubled, [Kind::DoubledInBook, Kind::WrongInBook, Kind::WrongTally]);
        // Under a key of its own, so that the store's unique key does not help.
        let doubled = found(|_, snapshot| {
            let mut second = document(&snapshot.log[2]);
            second.id = format!("{}-2", second.id);
            snapshot.book.push(second);
        });
        assert_eq!(doubled, [Kind::Foreign, Kind::DoubledInBook, Kind::WrongTally]);
    }

    #[test]
    fn a_document_that_nobody_cast_is_found() {
        let foreign = found(|_, snapshot| {
            let mut document = document(&snapshot.log[1]);
            (document.id, document.vote.id, document.offset) = ("bands|x".to_owned(), Uuid::now_v7(), 77);
            snapshot.book.push(document);
        });
        assert_eq!(foreign, [Kind::Foreign, Kind::WrongTally]);
    }

    #[test]
    fn a_later_copy_in_the_place_of_the_first_is_found() {
        let later = found(|_, snapshot| (snapshot.book[0].offset, snapshot.book[0].accepted_at) = (2, NOON + 2));
        assert_eq!(later, [Kind::WrongInBook]);
        let second_vote_of_a_voter = found(|_, snapshot| snapshot.book[2] = document(&snapshot.log[4]));
        assert_eq!(second_vote_of_a_voter, [Kind::WrongInBook, Kind::WrongTally]);
    }

    #[test]
    fn a_changed_document_is_found() {
        let changed = found(|_, snapshot| snapshot.book[0].vote.year = Some(1979));
        assert_eq!(changed, [Kind::WrongInBook]);
    }

    #[test]
    fn a_wrong_count_is_found_in_every_hash() {
        for (hash, field) in [
            ("tally:bands", "Queen"),
            ("tally:bands", "Abba"),
            ("albums:bands", r#"["Queen","Jazz"]"#),
            ("doors:bands", "rest"),
            ("doors:finals", "grpc"),
            ("rate:bands:10ms:1795262400000", "1795262400000"),
            ("rate:bands:1s:1795262400000", "1795262400000"),
            ("rate:bands:1m:1795219200000", "1795262400000"),
            // In the neighbouring window, in the wrong group, in a contest that is not there.
            ("rate:bands:1m:1795219200000", "1795262460000"),
            ("rate:bands:1s:1795266000000", "1795262400000"),
            ("tally:none", "Queen"),
        ] {
            assert_eq!(found(|_, snapshot| set(snapshot, hash, field, "3")), [Kind::WrongTally], "{hash} {field}");
        }
        let lost = found(|_, snapshot| drop(snapshot.hashes.remove("rate:finals:1m:1795219200000")));
        assert_eq!(lost, [Kind::WrongTally]);
    }

    #[test]
    fn a_window_that_moved_is_found() {
        let moved = found(|_, snapshot| {
            let fields = snapshot.hashes.get_mut("rate:bands:1m:1795219200000").unwrap();
            fields.insert("1795262400000".to_owned(), "1".to_owned());
            fields.insert("1795262340000".to_owned(), "1".to_owned());
        });
        assert_eq!(moved, [Kind::WrongTally]);
    }

    #[test]
    fn windows_that_have_expired_are_not_missed() {
        let expired = found(|_, snapshot| {
            snapshot.taken_at += 20 * 60_000;
            snapshot.hashes.retain(|hash, _| !hash.contains(":10ms:"));
        });
        assert_eq!(expired, []);
        let too_early = found(|_, snapshot| snapshot.hashes.retain(|hash, _| !hash.contains(":10ms:")));
        assert_eq!(too_early, [Kind::WrongTally]);
    }

    #[test]
    fn a_position_that_is_not_the_logs_end_is_found() {
        for position in ["4", "6"] {
            assert_eq!(found(|_, snapshot| set(snapshot, "position", "7", position)), [Kind::WrongPosition]);
        }
        assert_eq!(found(|_, snapshot| drop(snapshot.hashes.remove("position"))), [Kind::WrongPosition]);
        assert_eq!(found(|_, snapshot| set(snapshot, "position", "8", "1")), [Kind::WrongPosition]);
        assert_eq!(found(|_, snapshot| snapshot.checkpoints = BTreeMap::from([(7, 4)])), [Kind::WrongPosition]);
    }
}
