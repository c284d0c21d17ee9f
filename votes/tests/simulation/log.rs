//! The vote log of a history, and the truth: which of its votes stand.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::{RngExt, rngs::SmallRng};
use uuid::Uuid;
use votes::{
    BallotKey, Batch, Bounds, ContestId, Counts, DeadLetter, DoorKind, LoggedVote, Offset, Partition, Place, Poison,
    Record, UnixMillis, Vote, VoteId,
};

/// What a record that is no vote says of itself.
fn poison() -> Poison {
    Poison { reason: "not a vote".to_owned(), key: Vec::new(), value: Vec::new() }
}

/// One partition. It remembers every record, also those that it no longer gives out.
pub(crate) struct PartitionLog {
    partition: Partition,
    records: BTreeMap<Offset, Record>,
    bounds: Bounds,
    firsts: HashMap<BallotKey, Offset>,
    lasts: HashMap<BallotKey, Offset>,
    standing: BTreeMap<Offset, LoggedVote>,
    poison: BTreeSet<Offset>,
}

impl PartitionLog {
    pub(crate) fn new(partition: Partition) -> Self {
        Self {
            partition,
            records: BTreeMap::new(),
            bounds: Bounds { start: Offset(0), end: Offset(0) },
            firsts: HashMap::new(),
            lasts: HashMap::new(),
            standing: BTreeMap::new(),
            poison: BTreeSet::new(),
        }
    }

    /// Appends a vote, or a record that is none, after a gap of so many offsets.
    pub(crate) fn append(&mut self, gap: u64, vote: Option<Vote>) -> Offset {
        let offset = Offset(self.bounds.end.0 + gap);
        self.bounds.end = offset.next();
        if let Some(vote) = &vote {
            self.lasts.insert(vote.key.clone(), offset);
            if !self.firsts.contains_key(&vote.key) {
                self.firsts.insert(vote.key.clone(), offset);
                self.standing.insert(offset, LoggedVote { place: self.place(offset), vote: vote.clone() });
            }
        } else {
            self.poison.insert(offset);
        }
        let accepted_at = vote.as_ref().map_or(UnixMillis(0), |vote| vote.accepted_at);
        self.records.insert(offset, Record { offset, accepted_at, vote: vote.ok_or_else(poison) });
        offset
    }

    /// Forgets the records below `start`, as a log's retention does.
    pub(crate) fn trim(&mut self, start: Offset) {
        self.bounds.start = self.bounds.start.max(start);
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub(crate) fn has_from(&self, at: Offset) -> bool {
        at < self.bounds.end
    }

    /// A batch of up to `most` records. It ends where the last one does, or further on in the gap after it.
    pub(crate) fn read(&self, from: Offset, most: usize, rng: &mut SmallRng) -> Batch {
        let records: Vec<Record> = self.records.range(from..).take(most).map(|(_, record)| record.clone()).collect();
        let last = records.last().expect("the log has records from here").offset;
        let next = self.records.range(last.next()..).next().map_or(last.next(), |(offset, _)| *offset);
        let to = Offset(rng.random_range(last.next().0..=next.0));
        Batch { partition: self.partition, from, to, records }
    }

    /// The votes in `[from, to)` that stand: of each ballot the copy with the lowest offset.
    pub(crate) fn standing(&self, from: Offset, to: Offset) -> impl Iterator<Item = &LoggedVote> {
        self.standing.range(from..to.max(from)).map(|(_, logged)| logged)
    }

    /// The largest offset, at most `booked`, so that every copy of the ballots below it is below `booked`.
    pub(crate) fn settled_below(&self, booked: Offset) -> Offset {
        let unsettled = |logged: &&LoggedVote| self.lasts[&logged.vote.key] >= booked;
        self.standing(Offset(0), booked).find(unsettled).map_or(booked, |logged| logged.place.offset)
    }

    /// Where the ballot's first copy is.
    pub(crate) fn first(&self, key: &BallotKey) -> Option<Offset> {
        self.firsts.get(key).copied()
    }

    /// The counts of those.
    pub(crate) fn truth(&self, from: Offset, to: Offset) -> Counts {
        Counts::of(self.standing(from, to))
    }

    /// Whether this is the first copy of its ballot.
    pub(crate) fn stands(&self, logged: &LoggedVote) -> bool {
        self.standing.get(&logged.place.offset).is_some_and(|standing| standing == logged)
    }

    /// The letters of all records that are no votes.
    pub(crate) fn poison(&self) -> impl Iterator<Item = DeadLetter> {
        self.poison.iter().map(|offset| {
            let accepted_at = self.records[offset].accepted_at;
            DeadLetter { place: self.place(*offset), accepted_at, poison: poison() }
        })
    }

    fn place(&self, offset: Offset) -> Place {
        Place { partition: self.partition, offset }
    }
}

/// Who votes: people who cast votes, clients that send theirs again, voters who try twice.
pub(crate) struct Electorate {
    open: ContestId,
    once: ContestId,
    cast: Vec<Vec<Vote>>,
    next: u32,
}

impl Electorate {
    pub(crate) fn new(partitions: u16) -> Self {
        let contest = |slug: &str| slug.parse().expect("a slug");
        Self {
            open: contest("bands"),
            once: contest("final"),
            cast: vec![Vec::new(); usize::from(partitions)],
            next: 0,
        }
    }

    /// A new vote.
    pub(crate) fn vote(&mut self, partition: Partition, rng: &mut SmallRng) -> Vote {
        self.next += 1;
        let is_once = rng.random_bool(0.4);
        let contest = if is_once { self.once.clone() } else { self.open.clone() };
        let vote_id = VoteId(Uuid::from_u128(u128::from(self.next)));
        let key = if is_once { format!("{contest}|voter-{}", self.next) } else { format!("{contest}|{vote_id}") };
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
            door: DoorKind::Rest,
            traceparent: None,
        };
        let vote = self.choose(vote, rng);
        self.cast[usize::from(partition.0)].push(vote.clone());
        vote
    }

    /// A vote whose ballot is on the partition already, if there is any there: the same vote sent again, or another one by
    /// a voter who has only one.
    pub(crate) fn repeat(&mut self, partition: Partition, rng: &mut SmallRng) -> Vote {
        let cast = &self.cast[usize::from(partition.0)];
        if cast.is_empty() {
            return self.vote(partition, rng);
        }
        let recent = cast.len().saturating_sub(4);
        let is_recent = rng.random_bool(0.6);
        let index = rng.random_range(if is_recent { recent } else { 0 }..cast.len());
        let mut vote = cast[index].clone();
        if vote.contest == self.once {
            self.next += 1;
            vote.vote_id = VoteId(Uuid::from_u128(u128::from(self.next)));
        } else if rng.random_bool(0.7) {
            // A door stamps each copy anew.
            vote.accepted_at = UnixMillis(vote.accepted_at.0 + rng.random_range(0..2_000));
            return vote;
        }
        self.choose(vote, rng)
    }

    fn choose(&self, vote: Vote, rng: &mut SmallRng) -> Vote {
        Vote {
            name: ["Can", "Low", "Air"][rng.random_range(0..3)].to_owned(),
            album: [None, Some("One".to_owned()), Some("Two".to_owned())][rng.random_range(0..3)].clone(),
            accepted_at: UnixMillis(1_795_262_400_000 + i64::from(self.next) * 10_000 + rng.random_range(0..500)),
            door: [DoorKind::Grpc, DoorKind::Rest, DoorKind::Import][rng.random_range(0..3)],
            ..vote
        }
    }

    /// The key that a consumer would derive if it asked the rules of its own configuration, as none may.
    pub(crate) fn derived_key(vote: &Vote, has_many_votes: bool) -> BallotKey {
        if has_many_votes && vote.contest.as_str() == "final" {
            BallotKey::stored(&format!("{}|{}", vote.contest, vote.vote_id))
        } else {
            vote.key.clone()
        }
    }
}
