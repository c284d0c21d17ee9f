//! The ports as one process has them. Each call to a store takes two steps, the request's way there and the reply's way
//! back, and its effect is one instant between them: so whoever is dropped or held up is so before, or after, but not within.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    future::poll_fn,
    sync::{Arc, MutexGuard},
    task::Poll,
};

use async_trait::async_trait;
use rand::{RngExt, seq::SliceRandom};
use votes::{
    Added, Advanced, AlbumVotes, Assignment, BallotKey, Batch, Book, Bounds, Checkpoint, ContestCounts, ContestId,
    Counts, DeadLetter, Facts, LoggedVote, Offset, Others, Partition, Place, RateWindow, Repeat, Retention, Snapshot,
    Stop, Store, StoreError, Summary, Tallies, Tally, UnixMillis, VoteFeed, Window,
};

use crate::{
    log::Electorate,
    mutants::Mutant,
    world::{Luck, Phase, SeatState, Shared, TalliesState, World, failure},
};

/// A process' place in the world, with its connections to all stores.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) id: usize,
    world: Shared,
}

/// One step: whoever awaits it is not polled further before the schedule says so.
pub(crate) async fn step() {
    let mut is_taken = false;
    poll_fn(|_| if std::mem::replace(&mut is_taken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

impl Seat {
    /// A place for a process that starts now.
    pub(crate) fn new(world: &Shared) -> Self {
        let mut state = world.lock();
        let has_many_votes = state.has_many_votes;
        state.seats.push(SeatState { has_many_votes, ..SeatState::default() });
        let id = state.seats.len() - 1;
        drop(state);
        Self { id, world: world.clone() }
    }

    pub(crate) fn book(&self) -> Arc<dyn Book> {
        Arc::new(self.clone())
    }

    pub(crate) fn tallies(&self) -> Arc<dyn Tallies> {
        Arc::new(self.clone())
    }

    /// Says what the consumer is at from now on.
    pub(crate) fn enters(&self, phase: Phase) {
        self.with_state(|state| state.phase = phase);
    }

    pub(crate) fn disagrees(&self) {
        self.lock().happens("disagreements");
    }

    /// No history loses its log, so no partition has a reason to stop.
    pub(crate) fn stops(&self, stop: &Stop) {
        self.lock().violate(|| format!("stopped: {stop}"));
    }

    /// How far votes are to expire, if they are.
    pub(crate) fn expire_to(&self, partition: Partition) -> Option<Offset> {
        self.lock().expire_to(partition)
    }

    /// The offset committed to the log, which nobody may trust.
    pub(crate) fn committed(&self, partition: Partition) -> Offset {
        self.lock().committed.get(&partition).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock()
    }

    fn with_state(&self, change: impl FnOnce(&mut SeatState)) {
        change(&mut self.lock().seats[self.id]);
    }

    /// A call that takes effect whole or not at all, and may lose its reply.
    async fn call<R: Debug>(
        &self,
        store: &'static str,
        what: impl Fn() -> String,
        effect: impl FnOnce(&mut World) -> R,
    ) -> Result<R, StoreError> {
        step().await;
        let reply = {
            let mut world = self.lock();
            match world.luck() {
                Luck::Refused => {
                    self.say(&mut world, &what, "refused");
                    Err(failure(store))
                }
                luck => {
                    let reply = effect(&mut world);
                    let lost = luck == Luck::Lost;
                    self.say(&mut world, &what, format_args!("{reply:?}{}", if lost { ", reply lost" } else { "" }));
                    if lost { Err(failure(store)) } else { Ok(reply) }
                }
            }
        };
        step().await;
        reply
    }

    fn say(&self, world: &mut World, what: impl Fn() -> String, outcome: impl std::fmt::Display) {
        let id = self.id;
        world.say(|| format!("  process {id}: {} -> {outcome}", what()));
    }
}

#[async_trait]
impl Store for Seat {
    async fn check(&self) -> Result<Facts, StoreError> {
        Ok(Facts::new())
    }
}

#[async_trait]
impl Book for Seat {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        self.call("book", || format!("checkpoint of {partition}"), |world| world.booked(partition)).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        let mutant = self.lock().mutant;
        if let Some(Mutant::CheckpointFirst) = mutant {
            let batch = self.lock().seats[self.id].batch.clone().expect("a batch is counted");
            let last = votes.last().map(|logged| (logged.place.offset, logged.vote.vote_id));
            let cut_off = self.lock().booked(batch.partition).cut_off;
            let checkpoint = Checkpoint { offset: batch.to, last, cut_off };
            self.call("book", String::new, |world| world.advance(batch.partition, batch.from, checkpoint)).await?;
        }
        step().await;
        let reply = {
            let mut world = self.lock();
            let mut order: Vec<usize> = (0..votes.len()).collect();
            order.shuffle(&mut world.rng);
            let partial = world.faults.partial;
            let is_partial = partial > 0.0 && world.rng.random_bool(partial);
            let luck = world.luck();
            if luck == Luck::Refused {
                order.clear();
            } else if is_partial {
                world.happens("partial inserts");
                let done = world.rng.random_range(0..order.len());
                order.truncate(done);
            }
            let known = world.insert(&votes, &order);
            world.seats[self.id].candidates = mutant.is_some().then(|| Arc::clone(&votes));
            let is_failure = is_partial || luck != Luck::Good;
            let what = || {
                let wanted: Vec<u64> = votes.iter().map(|logged| logged.place.offset.0).collect();
                let tried: Vec<u64> = order.iter().map(|index| votes[*index].place.offset.0).collect();
                format!("insert {wanted:?}, tried {tried:?}")
            };
            let error = if is_failure { ", then an error" } else { "" };
            self.say(&mut world, what, format_args!("known indexes {known:?}{error}"));
            if is_failure && mutant != Some(Mutant::IgnoredError) { Err(failure("book")) } else { Ok(known) }
        };
        step().await;
        reply
    }

    async fn locate(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<Place>>, StoreError> {
        self.call(
            "book",
            || format!("locate {keys:?}"),
            |world| {
                let candidates = world.seats[self.id].candidates.as_deref().unwrap_or_default();
                let locate = |key| {
                    let stored = world.book.keys.get(key).copied()?;
                    let own = || candidates.iter().find(|logged| logged.vote.key == *key);
                    match world.mutant {
                        // Nothing that was there already is one's own.
                        Some(Mutant::InsertDecides) => {
                            Some(own().map_or(stored, |_| Place { partition: Partition(u16::MAX), ..stored }))
                        }
                        // One's own is whatever has one's id.
                        Some(Mutant::IdDecides) => {
                            let is_same =
                                |own: &&LoggedVote| own.vote.vote_id == world.book.votes[&stored].vote.vote_id;
                            own().filter(is_same).map_or(Some(stored), |own| Some(own.place))
                        }
                        _ => Some(stored),
                    }
                };
                keys.iter().map(locate).collect()
            },
        )
        .await
    }

    async fn advance(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        self.call(
            "book",
            || format!("advance {partition} from {from} to {}", checkpoint.offset),
            |world| {
                if world.is(Mutant::TalliesFirst) && world.tallied(partition) < checkpoint.offset {
                    world.seats[self.id].deferred = Some((from, checkpoint));
                    return Advanced::Done;
                }
                world.advance(partition, from, checkpoint)
            },
        )
        .await
    }

    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let rewind = |world: &mut World| {
            let cut_off = world.booked(partition).cut_off;
            Arc::make_mut(&mut world.book)
                .checkpoints
                .insert(partition, Checkpoint { offset: to, last: None, cut_off });
        };
        self.call("book", || format!("rewind {partition} to {to}"), rewind).await
    }

    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        most: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        step().await;
        let reply = {
            let mut world = self.lock();
            let luck = world.luck();
            let mut votes = world.range(partition, from, to, most);
            if world.is(Mutant::LaggingReplica)
                && world.seats[self.id].phase == Phase::Reconciling
                && world.rng.random_bool(0.3)
            {
                votes.retain(|logged| !world.book.latest.contains(&logged.place));
            }
            let count = votes.len();
            if count == most {
                world.happens("full chunks of the book");
            }
            self.say(&mut world, || format!("range {partition} [{from}, {to})"), format_args!("{count} votes"));
            if luck == Luck::Good { Ok(votes) } else { Err(failure("book")) }
        };
        step().await;
        reply
    }

    async fn note_repeats(&self, repeats: Vec<Repeat>) -> Result<(), StoreError> {
        let note = |world: &mut World| {
            if !world.is(Mutant::UnnotedRepeats) {
                let noted = repeats.iter().map(|repeat| (repeat.place, repeat.of));
                Arc::make_mut(&mut world.book).repeats.extend(noted);
            }
        };
        self.call("book", || format!("note repeats {repeats:?}"), note).await
    }

    async fn repeats(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Repeat>, StoreError> {
        let place = |offset| Place { partition, offset };
        let noted = |world: &mut World| {
            let noted = world.book.repeats.range(place(from)..place(to));
            noted.map(|(place, of)| Repeat { place: *place, of: *of }).collect::<Vec<_>>()
        };
        self.call("book", || format!("repeats of {partition} [{from}, {to})"), noted).await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        let read = |world: &mut World| {
            let counts = world.book.summaries.get(&partition).cloned().unwrap_or_default();
            TracedSummary(Summary { cut_off: world.booked(partition).cut_off, counts })
        };
        Ok(self.call("book", || format!("summary of {partition}"), read).await?.0)
    }

    async fn summarise(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
        let Summary { cut_off, counts } = summary;
        if self.lock().is(Mutant::ForgottenFirst) {
            let forget = |world: &mut World| world.forget(partition, cut_off);
            self.call("book", || format!("forget {partition} below {cut_off}, too early"), forget).await?;
        }
        let what = || format!("{partition} expires from {from} to {cut_off}");
        self.call("book", what, |world| world.summarise(partition, from, cut_off, counts)).await
    }

    async fn forget(&self, partition: Partition) -> Result<u64, StoreError> {
        let forget = |world: &mut World| world.forget(partition, world.booked(partition).cut_off);
        self.call("book", || format!("forget what expired of {partition}"), forget).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        unreachable!("the schedule says when votes expire")
    }
}

#[async_trait]
impl Tallies for Seat {
    async fn position(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.call(
            "tallies",
            || format!("position of {partition}"),
            |world| {
                let tallied = world.tallied(partition);
                if world.is(Mutant::FoldedToStored) && world.seats[self.id].phase == Phase::Reconciling {
                    let place = |offset| Place { partition, offset };
                    let stored = world.book.votes.range(place(tallied)..=place(Offset(u64::MAX))).next_back();
                    if let Some(end) = stored.map(|(place, _)| place.offset.next()) {
                        let votes = world.range(partition, tallied, end, usize::MAX);
                        world.add(partition, tallied, end, Counts::of(&votes));
                        return end;
                    }
                }
                tallied
            },
        )
        .await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        let clear = |world: &mut World| {
            world.happens("tallies that were cleared");
            if world.is(Mutant::SummaryOnTop) {
                Arc::make_mut(&mut world.tallies).positions.clear();
            } else {
                world.tallies = Arc::default();
            }
        };
        self.call("tallies", || "clear".to_owned(), clear).await
    }

    async fn add(&self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Result<Added, StoreError> {
        let mutant = self.lock().mutant;
        let counts = match mutant {
            Some(Mutant::Unfolded) => self.every_copy(partition, from, to).unwrap_or(counts),
            _ => counts,
        };
        let what = || format!("add {} votes to {partition}, [{from}, {to})", counts.total());
        let added = self.call("tallies", what, |world| world.add(partition, from, to, counts.clone())).await?;
        match mutant {
            Some(Mutant::TwoCalls) if added == Added::Added => {
                let set = |world: &mut World| {
                    Arc::make_mut(&mut world.tallies).positions.insert(partition, to);
                };
                self.call("tallies", || format!("set T of {partition} to {to}"), set).await?;
            }
            Some(Mutant::TalliesFirst) if added == Added::Added => {
                let deferred = self.lock().seats[self.id].deferred.take();
                if let Some((from, checkpoint)) = deferred {
                    let raise = |world: &mut World| world.advance(partition, from, checkpoint);
                    self.call("book", || "advance at last".to_owned(), raise).await?;
                }
            }
            Some(Mutant::FencedIsAdded) => return Ok(Added::Added),
            _ => {}
        }
        Ok(added)
    }

    /// Only the sums.
    async fn tally(&self, contest: &ContestId, _: usize) -> Result<Tally, StoreError> {
        let world = self.lock();
        Ok(Tally {
            contest: contest.clone(),
            total: world.tallies.counts.contests.get(contest).map_or(0, ContestCounts::total),
            version: 0,
            bands: Vec::new(),
            others: Others::default(),
            doors: BTreeMap::new(),
            processed: world.tallies.positions.values().map(|position| position.0).sum(),
        })
    }

    async fn albums(&self, _: &ContestId, _: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        unreachable!("pages are not simulated")
    }

    async fn rates(
        &self,
        _: Option<&ContestId>,
        _: Window,
        _: UnixMillis,
        _: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError> {
        unreachable!("pages are not simulated")
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let snapshot = |world: &mut World| {
            let TalliesState { positions, counts } = TalliesState::clone(&world.tallies);
            Traced(Snapshot { positions, contests: counts.contests })
        };
        Ok(self.call("tallies", || "snapshot".to_owned(), snapshot).await?.0)
    }

    async fn changed(&self, _: u64) -> Result<u64, StoreError> {
        unreachable!("pages are not simulated")
    }
}

/// As [`Traced`].
struct TracedSummary(Summary);

impl Debug for TracedSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} votes below {}", self.0.counts.total(), self.0.cut_off)
    }
}

/// A snapshot that reads the same in each trace of a seed: maps by hash have no order.
struct Traced(Snapshot);

impl Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let votes: u64 = self.0.contests.values().map(ContestCounts::total).sum();
        write!(f, "{votes} votes at {:?}", self.0.positions)
    }
}

impl Seat {
    /// What a batch comes to if each copy of a ballot that stands in it counts. `None` while reconciling.
    fn every_copy(&self, partition: Partition, from: Offset, to: Offset) -> Option<Counts> {
        let world = self.lock();
        let seat = &world.seats[self.id];
        let batch = seat.batch.as_ref().filter(|_| seat.phase != Phase::Reconciling)?;
        let copies: Vec<LoggedVote> = batch
            .records
            .iter()
            .filter(|record| (from..to).contains(&record.offset))
            .filter_map(|record| {
                let vote = record.vote.as_ref().ok()?.clone();
                let stands = world.book.keys.get(&vote.key)?.offset;
                let place = Place { partition, offset: record.offset };
                (batch.from..batch.to).contains(&stands).then_some(LoggedVote { place, vote })
            })
            .collect();
        Some(Counts::of(&copies))
    }
}

impl World {
    /// A batch as the consumer at this seat sees it.
    fn next_batch(&mut self, seat: usize, partition: Partition, most: usize) -> Batch {
        let most = if most > 1 { self.rng.random_range(1..=most) } else { 1 };
        let from = self.seats[seat].cursor;
        let mut batch = self.log[usize::from(partition.0)].read(from, most, &mut self.rng);
        self.seats[seat].cursor = batch.to;
        // Mutants are consumers: an auditor reads what there is.
        match self.mutant.filter(|_| self.seats[seat].phase != Phase::New) {
            Some(Mutant::DerivedKey) => {
                let has_many_votes = self.seats[seat].has_many_votes;
                for vote in batch.records.iter_mut().filter_map(|record| record.vote.as_mut().ok()) {
                    vote.key = Electorate::derived_key(vote, has_many_votes);
                }
            }
            Some(Mutant::LastCopy) => {
                let last: BTreeMap<BallotKey, Offset> = batch
                    .records
                    .iter()
                    .filter_map(|record| Some((record.vote.as_ref().ok()?.key.clone(), record.offset)))
                    .collect();
                batch
                    .records
                    .retain(|record| record.vote.as_ref().map_or(true, |vote| last[&vote.key] == record.offset));
            }
            _ => {}
        }
        if self.mutant.is_some() {
            self.seats[seat].batch = Some(batch.clone());
        }
        batch
    }
}

#[async_trait]
impl VoteFeed for Seat {
    fn partitions(&self) -> u16 {
        u16::try_from(self.lock().log.len()).expect("few partitions")
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        unreachable!("the schedule assigns")
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.call("vote log", || format!("bounds of {partition}"), |world| world.log(partition).bounds()).await
    }

    async fn seek(&self, _: Partition, at: Offset) -> Result<(), StoreError> {
        self.with_state(|state| state.cursor = at);
        Ok(())
    }

    async fn next_batch(&self, partition: Partition, most: usize) -> Result<Batch, StoreError> {
        step().await;
        poll_fn(|_| {
            let mut world = self.lock();
            let cursor = world.seats[self.id].cursor;
            if cursor < world.log(partition).bounds().start || world.luck() != Luck::Good {
                return Poll::Ready(Err(failure("vote log")));
            }
            let has_records = world.log(partition).has_from(cursor);
            world.seats[self.id].is_waiting = !has_records;
            if !has_records {
                return Poll::Pending;
            }
            let batch = world.next_batch(self.id, partition, most);
            let what = || format!("reads {partition} [{}, {})", batch.from, batch.to);
            self.say(&mut world, what, format_args!("{} records", batch.records.len()));
            Poll::Ready(Ok(batch))
        })
        .await
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        let commit = |world: &mut World| {
            world.committed.insert(partition, position);
        };
        self.call("vote log", || format!("commit {partition} at {position}"), commit).await
    }

    async fn expire(&self, _: Partition, _: Retention, _: Offset) -> Result<u64, StoreError> {
        unreachable!("the schedule trims the log")
    }

    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError> {
        let bury = |world: &mut World| world.dead.extend(dead.iter().map(|letter| (letter.place, letter.clone())));
        self.call("vote log", || format!("bury {}", dead[0].place), bury).await
    }

    async fn dead(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<DeadLetter>, StoreError> {
        let place = |offset| Place { partition, offset };
        let dead = |world: &mut World| world.dead.range(place(from)..place(to)).map(|(_, dead)| dead.clone()).collect();
        self.call("vote log", || format!("dead letters of {partition}"), dead).await
    }
}
