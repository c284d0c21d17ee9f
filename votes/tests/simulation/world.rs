//! The world of one history: the log, the stores' contents, and the faults. A change of it is one instant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{RngExt, rngs::SmallRng};
use votes::{
    Added, Advanced, BallotKey, Batch, Checkpoint, Counts, DeadLetter, LoggedVote, Offset, Partition, Place, StoreError,
};

use crate::{log::PartitionLog, mutants::Mutant};

/// The world, as everyone in it holds it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct World {
    pub(crate) rng: SmallRng,
    pub(crate) faults: Faults,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) log: Vec<PartitionLog>,
    pub(crate) book: Arc<BookState>,
    pub(crate) tallies: Arc<TalliesState>,
    pub(crate) dead: BTreeMap<Place, DeadLetter>,
    pub(crate) committed: BTreeMap<Partition, Offset>,
    /// The highest B that each partition ever had.
    pub(crate) booked: BTreeMap<Partition, Offset>,
    /// Where votes are to expire.
    pub(crate) is_full: BTreeSet<Partition>,
    /// Ballots below this are repeated no more: so long is the retention.
    pub(crate) horizon: BTreeMap<Partition, Offset>,
    /// Whether the book was ever restored.
    pub(crate) is_restored: bool,
    /// Whether the configuration now gives voters of every contest many votes.
    pub(crate) has_many_votes: bool,
    /// What each process knows, by its number.
    pub(crate) seats: Vec<SeatState>,
    /// The first broken promise.
    pub(crate) violation: Option<String>,
    /// How often what happened.
    pub(crate) happened: BTreeMap<&'static str, u64>,
    /// What happened, if anyone wants to read it.
    pub(crate) trace: Option<String>,
}

/// How likely a store's call fails.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Without an effect.
    pub(crate) refused: f64,
    /// With its effect, but without a reply.
    pub(crate) lost: f64,
    /// An insert, after some of its votes.
    pub(crate) partial: f64,
}

/// How a call goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    Good,
    Refused,
    Lost,
}

/// The book, as a backup of it is too.
#[derive(Clone, Default)]
pub(crate) struct BookState {
    pub(crate) votes: BTreeMap<Place, Arc<LoggedVote>>,
    pub(crate) keys: HashMap<BallotKey, Place>,
    pub(crate) checkpoints: BTreeMap<Partition, Checkpoint>,
    pub(crate) repeats: BTreeMap<Place, Offset>,
    pub(crate) summaries: BTreeMap<Partition, Counts>,
    /// The latest documents: a lagging replica doesn't have them yet.
    pub(crate) latest: Vec<Place>,
}

/// The tallies, as a backup of them is too.
#[derive(Clone, Default)]
pub(crate) struct TalliesState {
    pub(crate) positions: BTreeMap<Partition, Offset>,
    pub(crate) counts: Counts,
}

/// What a consumer is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not begun. Auditors and operators never do.
    #[default]
    New,
    Reconciling,
    /// Between two batches: it has no call to a store in flight that matters.
    Resting,
    Counting,
}

/// What one process knows that is not in its future.
#[derive(Default)]
pub(crate) struct SeatState {
    pub(crate) cursor: Offset,
    /// It waits for records.
    pub(crate) is_waiting: bool,
    pub(crate) phase: Phase,
    /// The rules it was started with.
    pub(crate) has_many_votes: bool,
    /// For mutants: its batch as the feed gave it.
    pub(crate) batch: Option<Batch>,
    /// For mutants: the candidates it inserted last.
    pub(crate) candidates: Option<Arc<[LoggedVote]>>,
    /// For mutants: a checkpoint that is yet to be set.
    pub(crate) deferred: Option<(Offset, Checkpoint)>,
}

impl World {
    /// Nothing has happened yet, and nothing goes wrong.
    pub(crate) fn new(partitions: u16, rng: SmallRng) -> Self {
        Self {
            rng,
            faults: Faults::default(),
            mutant: None,
            log: (0..partitions).map(|partition| PartitionLog::new(Partition(partition))).collect(),
            book: Arc::default(),
            tallies: Arc::default(),
            dead: BTreeMap::new(),
            committed: BTreeMap::new(),
            booked: BTreeMap::new(),
            is_full: BTreeSet::new(),
            horizon: BTreeMap::new(),
            is_restored: false,
            has_many_votes: false,
            seats: Vec::new(),
            violation: None,
            happened: BTreeMap::new(),
            trace: None,
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn log(&self, partition: Partition) -> &PartitionLog {
        &self.log[usize::from(partition.0)]
    }

    pub(crate) fn happens(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{}", line());
        }
    }

    pub(crate) fn violate(&mut self, promise: impl FnOnce() -> String) {
        if self.violation.is_none() || self.trace.is_some() {
            let promise = promise();
            self.say(|| format!("VIOLATION: {promise}"));
            self.violation.get_or_insert(promise);
        }
    }

    pub(crate) fn luck(&mut self) -> Luck {
        let Faults { refused, lost, .. } = self.faults;
        let draw: f64 = if refused + lost > 0.0 { self.rng.random() } else { 1.0 };
        if draw < refused {
            self.happens("refused calls");
            Luck::Refused
        } else if draw < refused + lost {
            self.happens("lost replies");
            Luck::Lost
        } else {
            Luck::Good
        }
    }

    pub(crate) fn booked(&self, partition: Partition) -> Checkpoint {
        self.book.checkpoints.get(&partition).copied().unwrap_or_default()
    }

    pub(crate) fn tallied(&self, partition: Partition) -> Offset {
        self.tallies.positions.get(&partition).copied().unwrap_or_default()
    }

    /// Stores the votes with these indexes, in this order, as far as their ballots are new; returns the others.
    pub(crate) fn insert(&mut self, votes: &[LoggedVote], order: &[usize]) -> Vec<usize> {
        let book = Arc::make_mut(&mut self.book);
        let mut known = Vec::new();
        let mut misplaced = None;
        book.latest.clear();
        for &index in order {
            let logged = &votes[index];
            if book.keys.contains_key(&logged.vote.key) {
                known.push(index);
                continue;
            }
            book.keys.insert(logged.vote.key.clone(), logged.place);
            book.votes.insert(logged.place, Arc::new(logged.clone()));
            book.latest.push(logged.place);
            // Below the cut-off it counts no more.
            let cut_off =
                book.checkpoints.get(&logged.place.partition).map_or(Offset(0), |checkpoint| checkpoint.cut_off);
            if logged.place.offset >= cut_off && !self.log[usize::from(logged.place.partition.0)].stands(logged) {
                misplaced = Some(logged.place);
            }
        }
        if let Some(place) = misplaced {
            self.violate(|| format!("the book took {place}, which is not the first copy of its ballot"));
        }
        known
    }

    pub(crate) fn advance(&mut self, partition: Partition, from: Offset, checkpoint: Checkpoint) -> Advanced {
        let Checkpoint { offset: booked, last, cut_off } = self.booked(partition);
        if cut_off != checkpoint.cut_off {
            self.happens("advances that something expired before");
            return Advanced::Expired(cut_off);
        }
        if booked < from && !self.is(Mutant::MaxCheckpoint) {
            self.happens("holes");
            return Advanced::Hole(booked);
        }
        if booked < checkpoint.offset || self.is(Mutant::LoweredCheckpoint) {
            let mut standing = self.log(partition).standing(booked, checkpoint.offset).map(|logged| logged.place);
            let missing = standing.find(|place| place.offset >= cut_off && !self.book.votes.contains_key(place));
            drop(standing);
            if let Some(place) = missing {
                self.violate(|| format!("B passes {place}, which is not in the book"));
            }
            let checkpoint = Checkpoint { offset: checkpoint.offset, last: checkpoint.last.or(last), cut_off };
            Arc::make_mut(&mut self.book).checkpoints.insert(partition, checkpoint);
            let highest = self.booked.entry(partition).or_default();
            *highest = (*highest).max(checkpoint.offset);
        }
        Advanced::Done
    }

    /// How far votes may expire so that no repeat comes after its vote is gone: everything that repeats a vote below this is
    /// on the log and was recorded. It comes true by this question.
    pub(crate) fn expire_to(&mut self, partition: Partition) -> Option<Offset> {
        if !self.is_full.remove(&partition) {
            return None;
        }
        let booked = self.booked(partition).offset;
        let most = self.log(partition).settled_below(booked);
        let to = Offset(self.rng.random_range(0..=most.0));
        let horizon = self.horizon.entry(partition).or_default();
        *horizon = (*horizon).max(to);
        Some(to)
    }

    pub(crate) fn summarise(&mut self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> bool {
        if self.booked(partition).cut_off != from {
            return false;
        }
        self.happens("votes that expired");
        let book = Arc::make_mut(&mut self.book);
        book.checkpoints.entry(partition).or_default().cut_off = to;
        book.summaries.insert(partition, counts);
        true
    }

    /// Deletes what is below the cut-off.
    pub(crate) fn forget(&mut self, partition: Partition, below: Offset) -> u64 {
        let place = |offset| Place { partition, offset };
        let is_held = !self.is(Mutant::NothingHeld);
        let book = Arc::make_mut(&mut self.book);
        let later = book.repeats.range(place(below)..=place(Offset(u64::MAX)));
        let held: BTreeSet<Offset> = later.map(|(_, of)| *of).filter(|of| is_held && *of < below).collect();
        let old: Vec<Place> = book.votes.range(place(Offset(0))..place(below)).map(|(place, _)| *place).collect();
        let mut forgotten = 0;
        for place in old.into_iter().filter(|place| !held.contains(&place.offset)) {
            if let Some(logged) = book.votes.remove(&place) {
                book.keys.remove(&logged.vote.key);
                forgotten += 1;
            }
        }
        book.repeats.retain(|repeat, _| repeat.partition != partition || repeat.offset >= below);
        if !held.is_empty() {
            self.happens("votes that stayed for their repeats");
        }
        forgotten
    }

    pub(crate) fn range(&self, partition: Partition, from: Offset, to: Offset, most: usize) -> Vec<LoggedVote> {
        let place = |offset| Place { partition, offset };
        let votes = self.book.votes.range(place(from)..place(to.max(from))).take(most);
        votes.map(|(_, logged)| LoggedVote::clone(logged)).collect()
    }

    /// The fence, and what moves with it.
    pub(crate) fn add(&mut self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Added {
        let tallied = self.tallied(partition);
        let passes = match self.mutant {
            Some(Mutant::NoFence) => true,
            Some(Mutant::NewerThan) => to > tallied,
            _ => tallied == from,
        };
        if !passes {
            self.happens("fenced additions");
            return Added::Fenced(tallied);
        }
        if to > self.booked.get(&partition).copied().unwrap_or_default() {
            self.violate(|| format!("partition {partition}: T becomes {to}, which was never booked"));
        }
        let (mut truth, mut moving) = (self.log(partition).truth(tallied, to), counts.clone());
        if tallied < self.booked(partition).cut_off {
            truth.keep_permanent();
            moving.keep_permanent();
            self.happens("additions of summaries");
        }
        if truth != moving {
            self.violate(|| {
                format!("partition {partition}: what moves T from {tallied} to {to} is not what stands there")
            });
        }
        let is_both = !self.is(Mutant::TwoCalls);
        let state = Arc::make_mut(&mut self.tallies);
        state.counts.merge(counts);
        if is_both {
            state.positions.insert(partition, to);
        }
        Added::Added
    }
}

/// What a failed call says.
pub(crate) fn failure(store: &'static str) -> StoreError {
    StoreError::new(store, "simulated failure")
}
