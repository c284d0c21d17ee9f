//! The vote log of a history. The log also has the expected result: which votes are originals, and thus count.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{RngExt, rngs::SmallRng};
use uuid::Uuid;
use votes::{
    BallotKey, Batch, Bounds, ContestId, Counts, DeadLetter, InvalidRecord, LogPosition, LoggedVote, Offset, Partition,
    ProducerKind, Record, UnixMillis, Vote, VoteId,
};

/// Returns the content of an invalid record.
fn invalid() -> InvalidRecord {
    InvalidRecord { reason: "not a vote".to_owned(), key: Vec::new(), value: Vec::new() }
}

/// One partition of the log. It stores every record, also the records that were deleted for the readers.
pub(crate) struct PartitionLog {
    partition: Partition,
    records: BTreeMap<Offset, Record>,
    bounds: Bounds,
    first_offsets: HashMap<BallotKey, Offset>,
    last_offsets: HashMap<BallotKey, Offset>,
    originals: BTreeMap<Offset, LoggedVote>,
    invalid: BTreeSet<Offset>,
}

impl PartitionLog {
    pub(crate) fn new(partition: Partition) -> Self {
        Self {
            partition,
            records: BTreeMap::new(),
            bounds: Bounds { start: Offset(0), end: Offset(0) },
            first_offsets: HashMap::new(),
            last_offsets: HashMap::new(),
            originals: BTreeMap::new(),
            invalid: BTreeSet::new(),
        }
    }

    /// Appends a vote, or an invalid record for `None`, after a gap of this number of offsets.
    pub(crate) fn append(&mut self, gap: u64, vote: Option<Vote>) -> Offset {
        let offset = Offset(self.bounds.end.0 + gap);
        self.bounds.end = offset.next();
        if let Some(vote) = &vote {
            self.last_offsets.insert(vote.key.clone(), offset);
            if !self.first_offsets.contains_key(&vote.key) {
                self.first_offsets.insert(vote.key.clone(), offset);
                self.originals.insert(offset, LoggedVote { position: self.position(offset), vote: vote.clone() });
            }
        } else {
            self.invalid.insert(offset);
        }
        let accepted_at = vote.as_ref().map_or(UnixMillis(0), |vote| vote.accepted_at);
        self.records.insert(offset, Record { offset, accepted_at, vote: vote.ok_or_else(invalid) });
        offset
    }

    /// Deletes the records below `start` for the readers, as the log's retention does.
    pub(crate) fn trim(&mut self, start: Offset) {
        self.bounds.start = self.bounds.start.max(start);
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn has_records_from(&self, at: Offset) -> bool {
        at < self.bounds.end
    }

    /// Reads up to `max_records` records. The batch ends after its last record, or in the gap that follows.
    pub(crate) fn read(&self, from: Offset, max_records: usize, rng: &mut SmallRng) -> Batch {
        let records: Vec<Record> =
            self.records.range(from..).take(max_records).map(|(_, record)| record.clone()).collect();
        let last = records.last().expect("the log has records from here").offset;
        let next = self.records.range(last.next()..).next().map_or(last.next(), |(offset, _)| *offset);
        let to = Offset(rng.random_range(last.next().0..=next.0));
        Batch { partition: self.partition, from, to, records }
    }

    /// Returns the originals in `[from, to)`. The original of a ballot is the record with the lowest offset.
    pub(crate) fn originals(&self, from: Offset, to: Offset) -> impl Iterator<Item = &LoggedVote> {
        self.originals.range(from..to.max(from)).map(|(_, logged)| logged)
    }

    /// Returns the limit below which votes may expire. It is the highest offset up to `recorded` for which every vote
    /// below has all its duplicates below `recorded`.
    pub(crate) fn expirable_below(&self, recorded: Offset) -> Offset {
        let has_later_duplicate = |logged: &&LoggedVote| self.last_offsets[&logged.vote.key] >= recorded;
        self.originals(Offset(0), recorded).find(has_later_duplicate).map_or(recorded, |logged| logged.position.offset)
    }

    /// Returns the ballot's original.
    pub(crate) fn original(&self, key: &BallotKey) -> Option<&LoggedVote> {
        self.originals.get(self.first_offsets.get(key)?)
    }

    /// Returns the offset of the ballot's original.
    pub(crate) fn original_offset(&self, key: &BallotKey) -> Option<Offset> {
        self.first_offsets.get(key).copied()
    }

    /// Counts the originals in `[from, to)`.
    pub(crate) fn true_counts(&self, from: Offset, to: Offset) -> Counts {
        Counts::of(self.originals(from, to))
    }

    /// Returns whether this vote is the original of its ballot.
    pub(crate) fn is_original(&self, logged: &LoggedVote) -> bool {
        self.originals.get(&logged.position.offset).is_some_and(|original| original == logged)
    }

    /// Returns whether the record at this offset is a vote with this id.
    pub(crate) fn has_vote(&self, offset: Offset, id: VoteId) -> bool {
        self.records.get(&offset).and_then(|record| record.vote.as_ref().ok()).is_some_and(|vote| vote.vote_id == id)
    }

    /// Returns the dead letters of all invalid records.
    pub(crate) fn expected_dead_letters(&self) -> impl Iterator<Item = DeadLetter> {
        self.invalid.iter().map(|offset| {
            let accepted_at = self.records[offset].accepted_at;
            DeadLetter::whole(self.position(*offset), accepted_at, invalid())
        })
    }

    fn position(&self, offset: Offset) -> LogPosition {
        LogPosition { partition: self.partition, offset }
    }
}

/// Returns the time that a producer gives to a vote which is appended to the log at `now`. The clock of the producer is
/// wrong by at most a second, and publishing takes at most 3 s.
fn producer_time(now: UnixMillis, rng: &mut SmallRng) -> UnixMillis {
    UnixMillis(now.0 + rng.random_range(-1_000..=1_000) - rng.random_range(0..=3_000))
}

/// Generates new votes, votes that a client sends again, and second votes of voters who have only one vote.
pub(crate) struct VoteGenerator {
    open_contest: ContestId,
    one_vote_contest: ContestId,
    /// The votes of each partition.
    cast: Vec<Vec<Vote>>,
    /// The number of the last vote.
    last_number: u32,
}

impl VoteGenerator {
    pub(crate) fn new(partitions: u16) -> Self {
        let contest = |slug: &str| slug.parse().expect("a slug");
        Self {
            open_contest: contest("bands"),
            one_vote_contest: contest("final"),
            cast: vec![Vec::new(); usize::from(partitions)],
            last_number: 0,
        }
    }

    /// Creates a new vote.
    pub(crate) fn vote(&mut self, partition: Partition, rng: &mut SmallRng, now: Option<UnixMillis>) -> Vote {
        self.last_number += 1;
        let has_one_vote = rng.random_bool(0.4);
        let contest = if has_one_vote { self.one_vote_contest.clone() } else { self.open_contest.clone() };
        let vote_id = VoteId(Uuid::from_u128(u128::from(self.last_number)));
        let key =
            if has_one_vote { format!("{contest}|voter-{}", self.last_number) } else { format!("{contest}|{vote_id}") };
        let vote = Vote {
            vote_id,
            key: BallotKey::stored(&key),
            contest,
            name: String::new(),
            album: None,
            year: None,
            rank: None,
            voter: None,
            accepted_at: UnixMillis(0),
            producer: ProducerKind::Rest,
            traceparent: None,
        };
        let vote = self.randomize(vote, rng, now);
        self.cast[usize::from(partition.0)].push(vote.clone());
        vote
    }

    /// Creates a duplicate of a vote of the partition: the same vote, sent again, or a second vote of a voter who has
    /// only one vote. If the partition has no votes yet, creates a new vote.
    pub(crate) fn duplicate(&mut self, partition: Partition, rng: &mut SmallRng, now: Option<UnixMillis>) -> Vote {
        let cast = &self.cast[usize::from(partition.0)];
        if cast.is_empty() {
            return self.vote(partition, rng, now);
        }
        let recent = cast.len().saturating_sub(4);
        let is_recent = rng.random_bool(0.6);
        let index = rng.random_range(if is_recent { recent } else { 0 }..cast.len());
        let mut vote = cast[index].clone();
        if vote.contest == self.one_vote_contest {
            self.last_number += 1;
            vote.vote_id = VoteId(Uuid::from_u128(u128::from(self.last_number)));
        } else if rng.random_bool(0.7) {
            // The producer gives each attempt its own time of acceptance.
            vote.accepted_at = match now {
                Some(now) => producer_time(now, rng),
                None => UnixMillis(vote.accepted_at.0 + rng.random_range(0..2_000)),
            };
            return vote;
        }
        self.randomize(vote, rng, now)
    }

    fn randomize(&self, vote: Vote, rng: &mut SmallRng, now: Option<UnixMillis>) -> Vote {
        let accepted_at = match now {
            Some(now) => producer_time(now, rng),
            None => UnixMillis(1_795_262_400_000 + i64::from(self.last_number) * 10_000 + rng.random_range(0..500)),
        };
        Vote {
            name: ["Can", "Low", "Air"][rng.random_range(0..3)].to_owned(),
            album: [None, Some("One".to_owned()), Some("Two".to_owned())][rng.random_range(0..3)].clone(),
            accepted_at,
            producer: [ProducerKind::Grpc, ProducerKind::Rest, ProducerKind::Import][rng.random_range(0..3)],
            ..vote
        }
    }

    /// Returns the key that a consumer would compute from the rules of its own configuration. No consumer may do so.
    pub(crate) fn derived_key(vote: &Vote, has_many_votes: bool) -> BallotKey {
        if has_many_votes && vote.contest.as_str() == "final" {
            BallotKey::stored(&format!("{}|{}", vote.contest, vote.vote_id))
        } else {
            vote.key.clone()
        }
    }
}
