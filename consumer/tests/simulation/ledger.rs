//! The simulated ledger.

use std::{
    fmt::{self, Debug},
    sync::Arc,
};

use async_trait::async_trait;
use rand::{RngExt as _, seq::SliceRandom as _};
use tokio::time::Instant;
use votes::{
    Advanced, BallotKey, Checkpoint, Duplicate, LOG_TIME_ERROR, Ledger, LedgerRepair, LedgerRetention, LogPosition,
    LoggedVote, Offset, Partition, Purged, StoreError, Summary, UnixMillis,
};

use crate::{
    mutants::Mutant,
    process::Process,
    reader::Phase,
    world::{CallFault, ProcessKind, World},
};

/// The retention of the ledger, in bytes.
pub(crate) const LEDGER_RETENTION: u64 = 1_000_000;

/// The share of the retention that the ledger has after votes have expired.
const TARGET_FILL: f64 = 0.3;

/// The share of a partition's records that an expiration retains, at least and at most. With a larger share, the size of
/// the ledger would be below the size from which on votes expire.
const RETAINED: std::ops::RangeInclusive<f64> = 0.000_01..=0.58;

impl World {
    /// Stores the votes with these indexes, in this order, if their ballots are new. Returns the indexes of the other
    /// votes.
    fn insert(&mut self, votes: &[LoggedVote], order: &[usize]) -> Vec<usize> {
        let ledger = Arc::make_mut(&mut self.ledger);
        let mut known = Vec::new();
        let mut misplaced = None;
        ledger.latest.clear();
        for &index in order {
            let logged = &votes[index];
            if ledger.keys.contains_key(&logged.vote.key) {
                known.push(index);
                continue;
            }
            ledger.keys.insert(logged.vote.key.clone(), logged.position);
            ledger.votes.insert(logged.position, Arc::new(logged.clone()));
            ledger.latest.push(logged.position);
            // A document below the cut-off no longer counts.
            let cut_off =
                ledger.checkpoints.get(&logged.position.partition).map_or(Offset(0), |checkpoint| checkpoint.cut_off);
            if logged.position.offset >= cut_off
                && !self.log[usize::from(logged.position.partition.0)].is_original(logged)
            {
                misplaced = Some(logged.position);
            }
        }
        if let Some(position) = misplaced {
            self.report_violation(|| format!("the ledger stored {position}, which is not the original of its ballot"));
        }
        known
    }

    pub(crate) fn advance_checkpoint(
        &mut self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Advanced {
        let Checkpoint { offset: recorded, last, cut_off } = self.recorded(partition);
        if cut_off != checkpoint.cut_off {
            self.count_event("checkpoints refused because of a cut-off");
            return Advanced::CutOffMoved(cut_off);
        }
        if recorded < from && !self.is(Mutant::MaxCheckpoint) {
            self.count_event("checkpoints refused because of a hole");
            return Advanced::Hole(recorded);
        }
        if recorded < checkpoint.offset || self.is(Mutant::LoweredCheckpoint) {
            let mut originals =
                self.log(partition).originals(recorded, checkpoint.offset).map(|logged| logged.position);
            let missing =
                originals.find(|position| position.offset >= cut_off && !self.ledger.votes.contains_key(position));
            drop(originals);
            if let Some(position) = missing {
                self.report_violation(|| format!("B passes {position}, which is not in the ledger"));
            }
            let checkpoint = Checkpoint { offset: checkpoint.offset, last: checkpoint.last.or(last), cut_off };
            Arc::make_mut(&mut self.ledger).checkpoints.insert(partition, checkpoint);
            let highest = self.recorded.entry(partition).or_default();
            *highest = (*highest).max(checkpoint.offset);
        }
        Advanced::Done
    }

    /// Returns the offset below which the votes of the partition may expire: every duplicate of these votes is already on
    /// the log and recorded.
    fn expirable_below(&self, partition: Partition) -> Offset {
        self.log(partition).expirable_below(self.recorded(partition).offset)
    }

    /// Returns the size of the ledger. If the votes of a partition must expire, the ledger is so large that the
    /// retention expires votes up to an offset that may expire.
    fn size(&mut self) -> u64 {
        let due: Vec<Partition> = self.expiry_due.iter().copied().collect();
        for partition in due {
            let Checkpoint { offset: recorded, cut_off, .. } = self.recorded(partition);
            let limit = self.expirable_below(partition);
            if limit <= cut_off {
                continue;
            }
            let until = self.rng.random_range(cut_off.0..=limit.0);
            // Half a record more, because the retention rounds down.
            let retained = ((recorded.0 - until) as f64 + 0.5) / (recorded.0 - cut_off.0) as f64;
            self.expiry_due.remove(&partition);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive size")]
            let size =
                (LEDGER_RETENTION as f64 * TARGET_FILL / retained.clamp(*RETAINED.start(), *RETAINED.end())) as u64;
            return size;
        }
        0
    }

    /// Moves the cut-off, if the votes below it may expire. From then on, no new duplicate of these votes is appended.
    /// `None` means that a vote below it may still get a duplicate: the retention of the simulation is too short, which is
    /// not a fault of counting.
    fn add_to_summary(&mut self, partition: Partition, from: Offset, expired: Summary) -> Option<bool> {
        if self.recorded(partition).cut_off != from && !self.is(Mutant::UnfencedSummary) {
            return Some(false);
        }
        let to = expired.cut_off;
        if to > self.expirable_below(partition) {
            if self.age.is_none() {
                self.count_event("expirations that were too early");
                return None;
            }
            self.report_violation(|| {
                format!("votes of {partition} below {to} expire, and one of them has a duplicate that is not counted")
            });
        }
        self.count_event(if self.age.is_some() { "expirations by age" } else { "expirations by size" });
        let horizon = self.horizon.entry(partition).or_default();
        *horizon = (*horizon).max(to);
        let ledger = Arc::make_mut(&mut self.ledger);
        ledger.checkpoints.entry(partition).or_default().cut_off = to;
        ledger.summaries.entry(partition).or_default().add(expired);
        Some(true)
    }

    /// Records duplicates. Returns `false` if one of the originals is not in the ledger.
    fn record_duplicates(&mut self, duplicates: Vec<Duplicate>) -> bool {
        if self.is(Mutant::UnrecordedDuplicates) {
            return true;
        }
        let mut has_originals = true;
        let ledger = Arc::make_mut(&mut self.ledger);
        for duplicate in duplicates {
            let offset = duplicate.position.offset;
            let original = LogPosition { offset: duplicate.original, ..duplicate.position };
            if ledger.votes.get(&original).is_some_and(|logged| logged.vote.key == duplicate.key) {
                let last = ledger.last_duplicates.entry(original).or_default();
                *last = (*last).max(offset);
            } else {
                has_originals = false;
            }
            ledger.duplicates.insert(duplicate.position, duplicate);
        }
        has_originals
    }

    /// Deletes these votes as far as they are below an offset, and the oldest duplicates below it with their originals.
    fn purge_expired(&mut self, partition: Partition, below: Offset, votes: &[(BallotKey, Offset)]) -> Purged {
        let position = |offset| LogPosition { partition, offset };
        let (is_unconditional, max_duplicates) = (self.is(Mutant::OriginalsPurged), self.max_purged);
        let ledger = Arc::make_mut(&mut self.ledger);
        let old_duplicates = ledger.duplicates.range(position(Offset(0))..position(below)).take(max_duplicates);
        let old_duplicates: Vec<Duplicate> = old_duplicates.map(|(_, duplicate)| duplicate.clone()).collect();
        let originals = old_duplicates.iter().map(|duplicate| duplicate.original);
        let offsets: Vec<Offset> = votes.iter().map(|(_, offset)| *offset).chain(originals).collect();
        let (mut deleted, mut retained) = (0, 0);
        for position in offsets.into_iter().filter(|offset| *offset < below).map(position) {
            let has_later_duplicate = ledger.last_duplicates.get(&position).is_some_and(|last| *last >= below);
            if has_later_duplicate && !is_unconditional {
                retained += u64::from(ledger.votes.contains_key(&position));
            } else if let Some(logged) = ledger.votes.remove(&position) {
                ledger.last_duplicates.remove(&position);
                ledger.keys.remove(&logged.vote.key);
                deleted += 1;
            }
        }
        for duplicate in &old_duplicates {
            ledger.duplicates.remove(&duplicate.position);
        }
        if retained > 0 {
            self.count_event("originals retained for their duplicates");
        }
        Purged { votes: deleted, is_done: old_duplicates.len() < max_duplicates }
    }

    pub(crate) fn range(&self, partition: Partition, from: Offset, to: Offset, max_votes: usize) -> Vec<LoggedVote> {
        let position = |offset| LogPosition { partition, offset };
        let votes = self.ledger.votes.range(position(from)..position(to.max(from))).take(max_votes);
        votes.map(|(_, logged)| LoggedVote::clone(logged)).collect()
    }

    /// For mutants of the horizon: makes the votes that a step of the retention reads so much older that the step decides
    /// like the mutant.
    fn shift_times(&mut self, process: usize, partition: Partition, votes: &mut [LoggedVote]) {
        let shift = match self.mutant {
            Some(Mutant::AgeByTheClock) => {
                let now = self.now();
                let reader = self.processes[process].reader(partition);
                let next = reader.batch.as_ref().filter(|_| reader.phase == Phase::Counting);
                let next = next.and_then(|batch| batch.records.iter().find_map(|record| record.vote.as_ref().ok()));
                next.map_or(0, |next| now.0 - next.accepted_at.0)
            }
            Some(Mutant::ExactAge) => i64::try_from(LOG_TIME_ERROR.as_millis()).expect("a short time"),
            _ => 0,
        };
        for logged in votes {
            logged.vote.accepted_at = UnixMillis(logged.vote.accepted_at.0 - shift);
        }
    }

    fn positions_of(&mut self, process: usize, keys: &[BallotKey]) -> Vec<Option<LogPosition>> {
        let is_consumer = self.processes[process].kind != ProcessKind::Other;
        if is_consumer && self.snapshot_stalled_until.is_some_and(|until| Instant::now() < until) {
            self.count_event("reads of a stalled snapshot");
            let has_key = |partition: &Partition| self.log(*partition).original_offset(&keys[0]).is_some();
            if let Some(partition) = self.partitions().find(has_key) {
                self.note_other_positions(process, partition);
            }
            return vec![None; keys.len()];
        }
        let candidates = self.processes[process].readers.values().filter_map(|reader| reader.candidates.as_deref());
        let candidates: Vec<&LoggedVote> = candidates.flatten().collect();
        let position_of = |key| {
            let stored = self.ledger.keys.get(key).copied()?;
            let own = || candidates.iter().find(|logged| logged.vote.key == *key);
            match self.mutant {
                // A vote that was stored already is never treated as the candidate itself.
                Some(Mutant::InsertDecides) => {
                    Some(own().map_or(stored, |_| LogPosition { partition: Partition(u16::MAX), ..stored }))
                }
                // Every stored vote with the same id is treated as the candidate itself.
                Some(Mutant::IdDecides) => {
                    let is_same = |own: &&&LoggedVote| own.vote.vote_id == self.ledger.votes[&stored].vote.vote_id;
                    own().filter(is_same).map_or(Some(stored), |own| Some(own.position))
                }
                _ => Some(stored),
            }
        };
        keys.iter().map(position_of).collect()
    }

    /// The counter finds that the stores are at other positions, so the task reconciles next.
    pub(crate) fn note_other_positions(&mut self, process: usize, partition: Partition) {
        let reader = self.processes[process].reader(partition);
        (reader.phase, reader.must_reconcile) = (Phase::Reconciling, true);
    }
}

#[async_trait]
impl Ledger for Process {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        let call = self.describe("ledger", "checkpoint", partition, String::new);
        self.call(call, move |world| world.recorded(partition)).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        let (process, partition, mutant) = (self.id, votes[0].position.partition, self.lock().mutant);
        if let Some(Mutant::CheckpointFirst) = mutant {
            let batch = self.lock().processes[process].reader(partition).batch.clone();
            if let Some(batch) = batch {
                let last = votes.last().map(|logged| (logged.position.offset, logged.vote.vote_id));
                let cut_off = self.lock().recorded(partition).cut_off;
                let checkpoint = Checkpoint { offset: batch.to, last, cut_off };
                let call = self.describe("ledger", "advance B", partition, || format!("too early, to {}", batch.to));
                self.call(call, move |world| world.advance_checkpoint(partition, batch.from, checkpoint)).await?;
            }
        }
        let arguments = || format!("{:?}", votes.iter().map(|logged| logged.position.offset.0).collect::<Vec<_>>());
        let call = self.describe("ledger", "insert", partition, arguments);
        let votes = Arc::clone(&votes);
        self.request(call, move |call, world, fault| {
            let mut order: Vec<usize> = (0..votes.len()).collect();
            order.shuffle(&mut world.rng);
            let partial = world.faults.partial;
            let is_partial = partial > 0.0 && world.rng.random_bool(partial);
            if fault == CallFault::Refused {
                order.clear();
            } else if is_partial {
                world.count_event("partial inserts");
                let done = world.rng.random_range(0..order.len());
                order.truncate(done);
            }
            let known = world.insert(&votes, &order);
            world.processes[process].reader(partition).candidates = mutant.is_some().then(|| Arc::clone(&votes));
            let is_failure = is_partial || fault != CallFault::None;
            let tried: Vec<u64> = order.iter().map(|index| votes[*index].position.offset.0).collect();
            let error = if is_failure { ", then an error" } else { "" };
            call.trace(world, process, format_args!("tried {tried:?}, known indexes {known:?}{error}"));
            if is_failure && mutant != Some(Mutant::IgnoredError) { Err(call.failure()) } else { Ok(known) }
        })
        .await
    }

    async fn positions_of(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<LogPosition>>, StoreError> {
        let process = self.id;
        let call = self.describe("ledger", "positions of", None, || format!("{keys:?}"));
        self.call(call, move |world| world.positions_of(process, &keys)).await
    }

    async fn advance_checkpoint(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        let process = self.id;
        let call = self.describe("ledger", "advance B", partition, || format!("from {from} to {}", checkpoint.offset));
        self.call(call, move |world| {
            if world.is(Mutant::TalliesFirst) && world.tallied(partition) < checkpoint.offset {
                world.processes[process].reader(partition).deferred_checkpoint = Some((from, checkpoint));
                return Advanced::Done;
            }
            let advanced = world.advance_checkpoint(partition, from, checkpoint);
            if advanced != Advanced::Done {
                world.note_other_positions(process, partition);
            }
            advanced
        })
        .await
    }

    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        max_votes: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        let process = self.id;
        let call = self.describe("ledger", "range", partition, || format!("[{from}, {to})"));
        self.request(call, move |call, world, fault| {
            let mut votes = world.range(partition, from, to, max_votes);
            let is_consumer = world.processes[process].kind != ProcessKind::Other;
            if world.is(Mutant::LaggingReplica)
                && is_consumer
                && world.processes[process].reader(partition).phase == Phase::Reconciling
                && world.rng.random_bool(0.3)
            {
                votes.retain(|logged| !world.ledger.latest.contains(&logged.position));
            }
            // Only the retention reads such a number of votes: 1, and from 128 to 2 048.
            if max_votes.is_power_of_two() {
                world.shift_times(process, partition, &mut votes);
            }
            let count = votes.len();
            if count == max_votes && max_votes > 1 {
                world.count_event("full chunks of the ledger");
            }
            call.trace(world, process, format_args!("{count} votes"));
            if fault == CallFault::None { Ok(votes) } else { Err(call.failure()) }
        })
        .await
    }

    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<bool, StoreError> {
        let (process, partition) = (self.id, duplicates[0].position.partition);
        let offsets = || {
            let offsets = |duplicate: &Duplicate| (duplicate.position.offset.0, duplicate.original.0);
            format!("{:?}", duplicates.iter().map(offsets).collect::<Vec<_>>())
        };
        let call = self.describe("ledger", "record duplicates", partition, offsets);
        let duplicates = duplicates.clone();
        self.call(call, move |world| {
            let has_originals = world.record_duplicates(duplicates);
            if !has_originals {
                world.note_other_positions(process, partition);
            }
            has_originals
        })
        .await
    }

    async fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Duplicate>, StoreError> {
        let call = self.describe("ledger", "duplicates", partition, || format!("[{from}, {to})"));
        self.call(call, move |world| world.duplicates(partition, from, to)).await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        let call = self.describe("ledger", "summary", partition, String::new);
        let read = move |world: &mut World| {
            let summary = world.ledger.summaries.get(&partition).cloned().unwrap_or_default();
            TracedSummary(Summary { cut_off: world.recorded(partition).cut_off, ..summary })
        };
        Ok(self.call(call, read).await?.0)
    }
}

#[async_trait]
impl LedgerRetention for Process {
    async fn add_to_summary(&self, partition: Partition, from: Offset, expired: Summary) -> Result<bool, StoreError> {
        let (process, cut_off) = (self.id, expired.cut_off);
        if self.lock().is(Mutant::PurgedBeforeSummary) {
            let call = self.describe("ledger", "purge_expired", partition, || format!("below {cut_off}, too early"));
            let purge = move |world: &mut World| {
                let cut_off = cut_off.min(world.expirable_below(partition));
                let votes = world.range(partition, Offset(0), cut_off, usize::MAX);
                let votes: Vec<_> = votes.into_iter().map(|logged| (logged.vote.key, logged.position.offset)).collect();
                world.purge_expired(partition, cut_off, &votes)
            };
            self.call(call, purge).await?;
        }
        let call = self.describe("ledger", "add_to_summary", partition, || format!("from {from} to {cut_off}"));
        self.request(call, move |call, world, fault| {
            let added = if fault == CallFault::Refused { None } else { world.add_to_summary(partition, from, expired) };
            call.trace(world, process, format_args!("{added:?}, {fault:?}"));
            match added {
                Some(added) if fault == CallFault::None => Ok(added),
                _ => Err(call.failure()),
            }
        })
        .await
    }

    async fn purge_expired(
        &self,
        partition: Partition,
        votes: Vec<(BallotKey, Offset)>,
        _: usize,
    ) -> Result<Purged, StoreError> {
        let call = self.describe("ledger", "purge_expired", partition, || format!("{} votes", votes.len()));
        let purge = move |world: &mut World| world.purge_expired(partition, world.recorded(partition).cut_off, &votes);
        self.call(call, purge).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        let call = self.describe("ledger", "size", None, String::new);
        self.call(call, World::size).await
    }
}

#[async_trait]
impl LedgerRepair for Process {
    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let call = self.describe("ledger", "rewind", partition, || format!("to {to}"));
        let rewind = move |world: &mut World| {
            let cut_off = world.recorded(partition).cut_off;
            Arc::make_mut(&mut world.ledger)
                .checkpoints
                .insert(partition, Checkpoint { offset: to, last: None, cut_off });
        };
        self.call(call, rewind).await
    }
}

/// A summary that has the same trace in each run of a seed. Hash maps have no stable order, so only sums are traced.
struct TracedSummary(Summary);

impl Debug for TracedSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} votes below {}", self.0.counts.total(), self.0.cut_off)
    }
}
