//! The independent checker compares what the clients sent and received with the contents of the stores.
//!
//! The checker receives a [`Snapshot`] that was read from the stores without the adapters of the system. It counts the
//! votes itself, from the definitions, without the code of the system. If it finds no violation, then:
//!
//! - every acknowledged vote is on the log at the position of its receipt, and every vote on the log was cast by a
//!   client;
//! - each ballot on the log is in the ledger exactly once: the record with the lowest offset, unchanged;
//! - the tallies are the counts of the ledger: bands, albums, producers and windows of time;
//! - the positions and checkpoints are the ends of the log: every record is counted.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::{self, Debug, Display},
};

use uuid::Uuid;

use super::history::{Cast, ClientHistory};

/// The contents of the stores at a moment when no vote was in flight.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub log: Vec<Record>,
    /// The end of the log, by partition.
    pub ends: BTreeMap<i32, i64>,
    /// The number of dead letters.
    pub dead_letters: usize,
    pub ledger: Vec<Document>,
    /// The checkpoints of the ledger, by partition.
    pub checkpoints: BTreeMap<i32, i64>,
    /// The fields of every Redis hash of the tallies, by the key without the prefix.
    pub hashes: BTreeMap<String, BTreeMap<String, String>>,
    /// The time of the snapshot, in Unix milliseconds. The checker needs the time because windows expire.
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

/// A document of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub id: String,
    pub partition: i32,
    pub offset: i64,
    pub accepted_at: i64,
    pub vote: Vote,
}

/// A vote on the log or in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    pub id: Uuid,
    pub contest: String,
    pub name: String,
    pub album: Option<String>,
    pub year: Option<u32>,
    /// The HMAC of the voter, in hexadecimal.
    pub voter: Option<String>,
    pub producer: String,
}

/// The kinds of violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ViolationKind {
    /// A valid vote was refused permanently, or was never acknowledged although its client kept trying.
    NotAcknowledged,
    /// The log does not have the vote at the position of its receipt.
    LostFromLog,
    /// The log has a vote that no client cast, or that its client cast with other contents.
    Forged,
    /// A vote was accepted more often than it was sent.
    AcceptedTooOften,
    /// A ballot that is on the log is not in the ledger.
    LostFromLedger,
    /// The ledger has a ballot that is not on the log.
    NotOnLog,
    /// The ledger has a ballot twice.
    DuplicatedInLedger,
    /// The document of a ballot in the ledger differs from the first record of the ballot.
    WrongInLedger,
    /// The tallies have another count than the ledger.
    WrongTally,
    /// A position or checkpoint is not the end of the log.
    WrongPosition,
    /// A vote became a dead letter.
    DeadLetters,
}

/// A violation of a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: ViolationKind,
    pub description: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.description)
    }
}

/// Returns all violations.
pub fn check(history: &ClientHistory, snapshot: &Snapshot) -> Vec<Violation> {
    let mut checker = Checker { history, snapshot, violations: Vec::new() };
    checker.check_receipts();
    checker.check_log();
    checker.check_ledger();
    checker.check_tallies();
    checker.check_positions();
    checker.violations
}

struct Checker<'a> {
    history: &'a ClientHistory,
    snapshot: &'a Snapshot,
    violations: Vec<Violation>,
}

impl Checker<'_> {
    fn report(&mut self, kind: ViolationKind, description: impl Into<String>) {
        self.violations.push(Violation { kind, description: description.into() });
    }

    /// Checks that every acknowledged vote is on the log, at the position and with the time of its receipt.
    fn check_receipts(&mut self) {
        let log: HashMap<(i32, i64), &Record> =
            self.snapshot.log.iter().map(|record| ((record.partition, record.offset), record)).collect();
        for cast in &self.history.casts {
            if let Some(reason) = &cast.refusal {
                self.report(ViolationKind::NotAcknowledged, format!("{} was refused permanently: {reason}", cast.id));
            } else if cast.receipts.is_empty() {
                self.report(
                    ViolationKind::NotAcknowledged,
                    format!("{} was not acknowledged after {} attempts", cast.id, cast.attempts),
                );
            }
            for receipt in &cast.receipts {
                let found = log.get(&(receipt.partition, receipt.offset));
                let is_on_log = found.is_some_and(|record| {
                    (record.vote.id, record.time, record.vote.producer.as_str())
                        == (cast.id, receipt.accepted_at, receipt.producer)
                });
                if !is_on_log {
                    let description =
                        format!("{} was acknowledged with {receipt:?}, but the log has {found:?}", cast.id);
                    self.report(ViolationKind::LostFromLog, description);
                }
            }
        }
    }

    /// Checks that every vote on the log was cast, and was accepted no more often than it was sent.
    fn check_log(&mut self) {
        let casts = self.history.by_id();
        // Kafka's client may write a vote twice that a producer accepted once. After the timeout of a vote, the client
        // starts a new epoch, and sends the other votes in flight again
        // (https://github.com/confluentinc/librdkafka/issues/4953). These duplicates have the same time and producer,
        // and count as one acceptance.
        let mut acceptances: HashMap<Uuid, HashSet<(i64, &str)>> = HashMap::new();
        for record in &self.snapshot.log {
            let is_cast = casts.get(&record.vote.id).is_some_and(|cast| {
                record.key == self.history.ballot(cast) && is_same(&record.vote, cast, self.history)
            });
            if !is_cast {
                self.report(ViolationKind::Forged, format!("was not cast by any client: {record:?}"));
            }
            acceptances.entry(record.vote.id).or_default().insert((record.time, &record.vote.producer));
        }
        for cast in &self.history.casts {
            let acceptances = acceptances.get(&cast.id).map_or(0, HashSet::len);
            if acceptances > cast.attempts {
                let description =
                    format!("{} was sent {} times but accepted {acceptances} times", cast.id, cast.attempts);
                self.report(ViolationKind::AcceptedTooOften, description);
            }
        }
        if self.snapshot.dead_letters > 0 {
            self.report(
                ViolationKind::DeadLetters,
                format!("{} dead letters, but no client sent an invalid record", self.snapshot.dead_letters),
            );
        }
    }

    /// Checks that the ledger has the first record of each ballot, and nothing else.
    fn check_ledger(&mut self) {
        let mut firsts: HashMap<&str, &Record> = HashMap::new();
        for record in &self.snapshot.log {
            let first = firsts.entry(&record.key).or_insert(record);
            if record.offset < first.offset {
                *first = record;
            }
        }
        let (mut ballots, mut ids, mut positions) = (HashSet::new(), HashSet::new(), HashSet::new());
        for document in &self.snapshot.ledger {
            let position = (document.partition, document.offset);
            if !ballots.insert(document.id.as_str()) | !ids.insert(document.vote.id) | !positions.insert(position) {
                self.report(ViolationKind::DuplicatedInLedger, format!("{document:?}"));
            }
            match firsts.get(document.id.as_str()) {
                None => self.report(ViolationKind::NotOnLog, format!("not on the log: {document:?}")),
                Some(first) => {
                    let is_same = (first.partition, first.offset, first.time, &first.vote)
                        == (document.partition, document.offset, document.accepted_at, &document.vote);
                    if !is_same {
                        self.report(ViolationKind::WrongInLedger, format!("{document:?} is on the log as {first:?}"));
                    }
                }
            }
        }
        for (ballot, first) in firsts {
            if !ballots.contains(ballot) {
                self.report(ViolationKind::LostFromLedger, format!("{ballot} of {first:?}"));
            }
        }
    }

    /// Checks that the hashes of the tallies are the counts of the ledger.
    fn check_tallies(&mut self) {
        let mut expected: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for document in &self.snapshot.ledger {
            for (hash, field) in counted_in(document) {
                *expected.entry(hash).or_default().entry(field).or_default() += 1;
            }
        }
        expected.retain(|hash, _| !may_have_expired(hash, self.snapshot.taken_at));
        let nothing = BTreeMap::new();
        let has_counts = |hash: &String| {
            ["tally:", "albums:", "producers:", "rate:"].iter().any(|kind| hash.starts_with(kind))
                && !may_have_expired(hash, self.snapshot.taken_at)
        };
        let found: HashSet<&String> = self.snapshot.hashes.keys().filter(|hash| has_counts(hash)).collect();
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
            self.compare(
                ViolationKind::WrongTally,
                hash,
                &expected,
                self.snapshot.hashes.get(hash).unwrap_or(&nothing),
            );
        }
    }

    /// Checks that both stores have counted every record of the log.
    fn check_positions(&mut self) {
        let nothing = BTreeMap::new();
        // The tallies have no position of a partition without records.
        let nonzero = |positions: &BTreeMap<i32, i64>| -> BTreeMap<String, String> {
            let nonzero = positions.iter().filter(|(_, position)| **position > 0);
            nonzero.map(|(partition, position)| (partition.to_string(), position.to_string())).collect()
        };
        let ends = nonzero(&self.snapshot.ends);
        let positions = self.snapshot.hashes.get("position").unwrap_or(&nothing);
        self.compare(ViolationKind::WrongPosition, "position", &ends, positions);
        self.compare(ViolationKind::WrongPosition, "checkpoints", &ends, &nonzero(&self.snapshot.checkpoints));
    }

    fn compare<T: PartialEq + Debug>(
        &mut self,
        kind: ViolationKind,
        name: &str,
        expected: &BTreeMap<String, T>,
        found: &BTreeMap<String, T>,
    ) {
        let mut fields: Vec<&String> = expected.keys().chain(found.keys()).collect();
        fields.sort_unstable();
        fields.dedup();
        for field in fields {
            let (expected, found) = (expected.get(field), found.get(field));
            if expected != found {
                self.report(kind, format!("{name}, {field:?}: {found:?} instead of {expected:?}"));
            }
        }
    }
}

/// Returns whether a vote on the log has the contents that its client cast.
fn is_same(vote: &Vote, cast: &Cast, history: &ClientHistory) -> bool {
    let voter = cast.voter.as_ref().map(|voter| history.voter_hmac(cast.contest, voter));
    (vote.contest.as_str(), &vote.name, &vote.album, vote.year, &vote.voter)
        == (cast.contest, &cast.name, &cast.album, cast.year, &voter)
        && ["rest", "grpc"].contains(&vote.producer.as_str())
}

/// The windows: name, size, length of the time that one hash covers, and retention; in milliseconds.
const WINDOWS: [(&str, i64, i64, Option<i64>); 3] = [
    ("10ms", 10, 10_000, Some(15 * 60_000)),
    ("1s", 1_000, 3_600_000, Some(24 * 3_600_000)),
    ("1m", 60_000, 86_400_000, None),
];

/// Returns the hash and the field of each count that includes the vote.
fn counted_in(document: &Document) -> Vec<(String, String)> {
    let Vote { contest, name, album, producer, .. } = &document.vote;
    let mut counted =
        vec![(format!("tally:{contest}"), name.clone()), (format!("producers:{contest}"), producer.clone())];
    if let Some(album) = album {
        counted.push((format!("albums:{contest}"), serde_json::json!([name, album]).to_string()));
    }
    for (window, size, group, _) in WINDOWS {
        let start = |size: i64| document.accepted_at.div_euclid(size) * size;
        counted.push((format!("rate:{contest}:{window}:{}", start(group)), start(size).to_string()));
    }
    counted
}

/// Returns whether a hash of windows may have expired when the stores were read, or shortly after.
fn may_have_expired(hash: &str, now: i64) -> bool {
    const MARGIN: i64 = 60_000;
    let mut parts = hash.rsplit(':');
    let (Some(start), Some(window)) = (parts.next().and_then(|start| start.parse::<i64>().ok()), parts.next()) else {
        return false;
    };
    WINDOWS.iter().any(|(name, _, group, retention)| {
        *name == window && retention.is_some_and(|retention| start + group + retention < now + MARGIN)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::{ONCE, OPEN, Receipt};

    const NOON: i64 = 1_795_262_400_000;

    /// Returns a small history without a violation: two votes, one of them sent and acknowledged twice, and a voter who
    /// voted twice.
    fn history() -> (ClientHistory, Snapshot) {
        let mut history = ClientHistory { casts: Vec::new(), secret: b"sixteen bytes or more".to_vec() };
        let mut snapshot = Snapshot { taken_at: NOON + 5_000, ..Snapshot::default() };
        cast(&mut history, OPEN, "Queen", Some("Jazz"), None);
        cast(&mut history, OPEN, "Björk", None, None);
        cast(&mut history, ONCE, "Queen", None, Some("ann"));
        cast(&mut history, ONCE, "Björk", None, Some("ann"));
        for (offset, index) in [0, 1, 0, 2, 3].into_iter().enumerate() {
            send(&mut history, &mut snapshot, index, i64::try_from(offset).unwrap());
        }
        let firsts = [0, 1, 3];
        snapshot.ledger = firsts.iter().map(|&index| document(&snapshot.log[index])).collect();
        snapshot.ends = BTreeMap::from([(0, 0), (7, 5)]);
        snapshot.checkpoints = BTreeMap::from([(7, 5)]);
        let hash = |fields: &[(&str, &str)]| -> BTreeMap<String, String> {
            fields.iter().map(|&(field, votes)| (field.to_owned(), votes.to_owned())).collect()
        };
        for (name, fields) in [
            ("position", hash(&[("7", "5")])),
            ("tally:bands", hash(&[("Queen", "1"), ("Björk", "1")])),
            ("albums:bands", hash(&[(r#"["Queen","Jazz"]"#, "1")])),
            ("producers:bands", hash(&[("rest", "2")])),
            ("tally:finals", hash(&[("Queen", "1")])),
            ("producers:finals", hash(&[("rest", "1")])),
            ("rate:bands:10ms:1795262400000", hash(&[("1795262400000", "2")])),
            ("rate:bands:1s:1795262400000", hash(&[("1795262400000", "2")])),
            ("rate:bands:1m:1795219200000", hash(&[("1795262400000", "2")])),
            ("rate:finals:10ms:1795262400000", hash(&[("1795262400000", "1")])),
            ("rate:finals:1s:1795262400000", hash(&[("1795262400000", "1")])),
            ("rate:finals:1m:1795219200000", hash(&[("1795262400000", "1")])),
        ] {
            snapshot.hashes.insert(name.to_owned(), fields);
        }
        (history, snapshot)
    }

    fn cast(history: &mut ClientHistory, contest: &'static str, name: &str, album: Option<&str>, voter: Option<&str>) {
        history.casts.push(Cast {
            id: Uuid::now_v7(),
            contest,
            name: name.to_owned(),
            album: album.map(str::to_owned),
            year: Some(1978),
            voter: voter.map(str::to_owned),
            attempts: 0,
            receipts: Vec::new(),
            refusal: None,
        });
    }

    /// Sends a vote. The vote is written to the log and acknowledged.
    fn send(history: &mut ClientHistory, snapshot: &mut Snapshot, index: usize, offset: i64) {
        let cast = &mut history.casts[index];
        cast.attempts += 1;
        cast.receipts.push(Receipt { producer: "rest", partition: 7, offset, accepted_at: NOON + offset });
        let cast = &history.casts[index];
        let vote = Vote {
            id: cast.id,
            contest: cast.contest.to_owned(),
            name: cast.name.clone(),
            album: cast.album.clone(),
            year: cast.year,
            voter: cast.voter.as_ref().map(|voter| history.voter_hmac(cast.contest, voter)),
            producer: "rest".to_owned(),
        };
        snapshot.log.push(Record { partition: 7, offset, time: NOON + offset, key: history.ballot(cast), vote });
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

    /// Returns the kinds of violations after a change of the correct history.
    fn kinds_after(change: impl FnOnce(&mut ClientHistory, &mut Snapshot)) -> Vec<ViolationKind> {
        let (mut history, mut snapshot) = history();
        change(&mut history, &mut snapshot);
        let mut kinds: Vec<ViolationKind> =
            check(&history, &snapshot).into_iter().map(|violation| violation.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn set(snapshot: &mut Snapshot, hash: &str, field: &str, value: &str) {
        snapshot.hashes.entry(hash.to_owned()).or_default().insert(field.to_owned(), value.to_owned());
    }

    #[test]
    fn a_correct_history_has_no_violation() {
        let (history, snapshot) = history();
        assert_eq!(check(&history, &snapshot), []);
    }

    #[test]
    fn a_vote_that_was_never_acknowledged_is_found() {
        assert_eq!(kinds_after(|history, _| history.casts[1].receipts.clear()), [ViolationKind::NotAcknowledged]);
        assert_eq!(
            kinds_after(|history, _| history.casts[1].refusal = Some("422".to_owned())),
            [ViolationKind::NotAcknowledged]
        );
    }

    #[test]
    fn an_acknowledged_vote_that_the_log_lost_is_found() {
        // The vote is lost from all stores. Only the client has its receipt.
        let lost = kinds_after(|_, snapshot| {
            snapshot.log.remove(1);
            snapshot.ledger.remove(1);
            snapshot.hashes.get_mut("tally:bands").unwrap().remove("Björk");
            for (hash, fields) in &mut snapshot.hashes {
                if hash.starts_with("rate:bands") || hash == "producers:bands" {
                    for votes in fields.values_mut() {
                        *votes = "1".to_owned();
                    }
                }
            }
        });
        assert_eq!(lost, [ViolationKind::LostFromLog]);
        let elsewhere = kinds_after(|history, _| history.casts[1].receipts[0].offset = 0);
        assert_eq!(elsewhere, [ViolationKind::LostFromLog]);
        let at_another_time = kinds_after(|history, _| history.casts[1].receipts[0].accepted_at += 1);
        assert_eq!(at_another_time, [ViolationKind::LostFromLog]);
    }

    #[test]
    fn a_record_that_was_not_cast_by_a_client_is_found() {
        assert_eq!(
            kinds_after(|_, snapshot| snapshot.log[2].vote.id = Uuid::now_v7()),
            [ViolationKind::LostFromLog, ViolationKind::Forged]
        );
        assert_eq!(kinds_after(|_, snapshot| snapshot.log[2].vote.name = "Abba".to_owned()), [ViolationKind::Forged]);
        let under_another_key = kinds_after(|_, snapshot| snapshot.log[4].key = "finals|of another voter".to_owned());
        assert_eq!(under_another_key, [ViolationKind::Forged, ViolationKind::LostFromLedger]);
    }

    #[test]
    fn more_acceptances_than_attempts_are_found() {
        let kinds = kinds_after(|history, _| history.casts[0].attempts = 1);
        assert_eq!(kinds, [ViolationKind::AcceptedTooOften]);
    }

    #[test]
    fn a_duplicate_of_kafkas_client_is_not_a_second_acceptance() {
        let duplicate = |history: &mut ClientHistory, snapshot: &mut Snapshot| {
            let mut record = snapshot.log[1].clone();
            record.offset = 5;
            snapshot.log.push(record);
            snapshot.ends.insert(7, 6);
            snapshot.checkpoints.insert(7, 6);
            set(snapshot, "position", "7", "6");
            assert_eq!(history.casts[1].attempts, 1);
        };
        assert_eq!(kinds_after(duplicate), []);
        let counted = kinds_after(|history, snapshot| {
            duplicate(history, snapshot);
            set(snapshot, "tally:bands", "Björk", "2");
        });
        assert_eq!(counted, [ViolationKind::WrongTally]);
    }

    #[test]
    fn a_dead_letter_is_found() {
        assert_eq!(kinds_after(|_, snapshot| snapshot.dead_letters = 1), [ViolationKind::DeadLetters]);
    }

    #[test]
    fn a_vote_that_is_not_in_the_ledger_is_found() {
        let lost = kinds_after(|_, snapshot| drop(snapshot.ledger.remove(0)));
        assert_eq!(lost, [ViolationKind::LostFromLedger, ViolationKind::WrongTally]);
    }

    #[test]
    fn a_ballot_that_is_in_the_ledger_twice_is_found() {
        let doubled = kinds_after(|_, snapshot| {
            let second = document(&snapshot.log[2]);
            snapshot.ledger.push(second);
        });
        assert_eq!(
            doubled,
            [ViolationKind::DuplicatedInLedger, ViolationKind::WrongInLedger, ViolationKind::WrongTally]
        );
        // The second document has a key of its own: the store's unique key does not prevent this.
        let doubled = kinds_after(|_, snapshot| {
            let mut second = document(&snapshot.log[2]);
            second.id = format!("{}-2", second.id);
            snapshot.ledger.push(second);
        });
        assert_eq!(doubled, [ViolationKind::NotOnLog, ViolationKind::DuplicatedInLedger, ViolationKind::WrongTally]);
    }

    #[test]
    fn a_document_that_was_not_cast_by_a_client_is_found() {
        let foreign = kinds_after(|_, snapshot| {
            let mut document = document(&snapshot.log[1]);
            (document.id, document.vote.id, document.offset) = ("bands|x".to_owned(), Uuid::now_v7(), 77);
            snapshot.ledger.push(document);
        });
        assert_eq!(foreign, [ViolationKind::NotOnLog, ViolationKind::WrongTally]);
    }

    #[test]
    fn a_later_record_instead_of_the_first_is_found() {
        let later = kinds_after(|_, snapshot| {
            (snapshot.ledger[0].offset, snapshot.ledger[0].accepted_at) = (2, NOON + 2);
        });
        assert_eq!(later, [ViolationKind::WrongInLedger]);
        let second_vote_of_a_voter = kinds_after(|_, snapshot| snapshot.ledger[2] = document(&snapshot.log[4]));
        assert_eq!(second_vote_of_a_voter, [ViolationKind::WrongInLedger, ViolationKind::WrongTally]);
    }

    #[test]
    fn a_changed_document_is_found() {
        let changed = kinds_after(|_, snapshot| snapshot.ledger[0].vote.year = Some(1979));
        assert_eq!(changed, [ViolationKind::WrongInLedger]);
    }

    #[test]
    fn a_wrong_count_is_found_in_every_hash() {
        for (hash, field) in [
            ("tally:bands", "Queen"),
            ("tally:bands", "Abba"),
            ("albums:bands", r#"["Queen","Jazz"]"#),
            ("producers:bands", "rest"),
            ("producers:finals", "grpc"),
            ("rate:bands:10ms:1795262400000", "1795262400000"),
            ("rate:bands:1s:1795262400000", "1795262400000"),
            ("rate:bands:1m:1795219200000", "1795262400000"),
            // In the neighbouring window, in the wrong hash, and in a contest without votes.
            ("rate:bands:1m:1795219200000", "1795262460000"),
            ("rate:bands:1s:1795266000000", "1795262400000"),
            ("tally:none", "Queen"),
        ] {
            assert_eq!(
                kinds_after(|_, snapshot| set(snapshot, hash, field, "3")),
                [ViolationKind::WrongTally],
                "{hash} {field}"
            );
        }
        let lost = kinds_after(|_, snapshot| drop(snapshot.hashes.remove("rate:finals:1m:1795219200000")));
        assert_eq!(lost, [ViolationKind::WrongTally]);
    }

    #[test]
    fn a_window_that_moved_is_found() {
        let moved = kinds_after(|_, snapshot| {
            let fields = snapshot.hashes.get_mut("rate:bands:1m:1795219200000").unwrap();
            fields.insert("1795262400000".to_owned(), "1".to_owned());
            fields.insert("1795262340000".to_owned(), "1".to_owned());
        });
        assert_eq!(moved, [ViolationKind::WrongTally]);
    }

    #[test]
    fn expired_windows_may_be_missing() {
        let expired = kinds_after(|_, snapshot| {
            snapshot.taken_at += 20 * 60_000;
            snapshot.hashes.retain(|hash, _| !hash.contains(":10ms:"));
        });
        assert_eq!(expired, []);
        let too_early = kinds_after(|_, snapshot| snapshot.hashes.retain(|hash, _| !hash.contains(":10ms:")));
        assert_eq!(too_early, [ViolationKind::WrongTally]);
    }

    #[test]
    fn a_position_that_is_not_the_logs_end_is_found() {
        for position in ["4", "6"] {
            let kinds = kinds_after(|_, snapshot| set(snapshot, "position", "7", position));
            assert_eq!(kinds, [ViolationKind::WrongPosition]);
        }
        assert_eq!(kinds_after(|_, snapshot| drop(snapshot.hashes.remove("position"))), [ViolationKind::WrongPosition]);
        assert_eq!(kinds_after(|_, snapshot| set(snapshot, "position", "8", "1")), [ViolationKind::WrongPosition]);
        assert_eq!(
            kinds_after(|_, snapshot| snapshot.checkpoints = BTreeMap::from([(7, 4)])),
            [ViolationKind::WrongPosition]
        );
    }
}
