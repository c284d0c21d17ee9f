//! The simulated ledger.

use std::{
    collections::BTreeSet,
    fmt::{self, Debug},
    sync::Arc,
};

use async_trait::async_trait;
use rand::{RngExt as _, seq::SliceRandom as _};
use tokio::time::Instant;
use votes::{
    Advanced, BallotKey, Checkpoint, Counts, Duplicate, Ledger, LedgerRepair, LedgerRetention, LogPosition, LoggedVote,
    Offset, Partition, StoreError, Summary,
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
    fn put_summary(&mut self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Option<bool> {
        if self.recorded(partition).cut_off != from {
            return Some(false);
        }
        if to > self.expirable_below(partition) {
            self.count_event("expirations that were too early");
            return None;
        }
        self.count_event("expirations");
        let horizon = self.horizon.entry(partition).or_default();
        *horizon = (*horizon).max(to);
        let ledger = Arc::make_mut(&mut self.ledger);
        ledger.checkpoints.entry(partition).or_default().cut_off = to;
        ledger.summaries.insert(partition, counts);
        Some(true)
    }

    /// Deletes the votes and duplicates below the cut-off.
    fn purge_expired(&mut self, partition: Partition, below: Offset) -> u64 {
        let position = |offset| LogPosition { partition, offset };
        let retains_originals = !self.is(Mutant::OriginalsPurged);
        let ledger = Arc::make_mut(&mut self.ledger);
        let later = ledger.duplicates.range(position(below)..=position(Offset(u64::MAX)));
        let is_retained = |original: &Offset| retains_originals && *original < below;
        let retained: BTreeSet<Offset> = later.map(|(_, original)| *original).filter(is_retained).collect();
        let old: Vec<LogPosition> =
            ledger.votes.range(position(Offset(0))..position(below)).map(|(position, _)| *position).collect();
        let mut purged = 0;
        for position in old.into_iter().filter(|position| !retained.contains(&position.offset)) {
            if let Some(logged) = ledger.votes.remove(&position) {
                ledger.keys.remove(&logged.vote.key);
                purged += 1;
            }
        }
        ledger.duplicates.retain(|duplicate, _| duplicate.partition != partition || duplicate.offset >= below);
        if !retained.is_empty() {
            self.count_event("originals retained for their duplicates");
        }
        purged
    }

    pub(crate) fn range(&self, partition: Partition, from: Offset, to: Offset, max_votes: usize) -> Vec<LoggedVote> {
        let position = |offset| LogPosition { partition, offset };
        let votes = self.ledger.votes.range(position(from)..position(to.max(from))).take(max_votes);
        votes.map(|(_, logged)| LoggedVote::clone(logged)).collect()
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
            let count = votes.len();
            if count == max_votes {
                world.count_event("full chunks of the ledger");
            }
            call.trace(world, process, format_args!("{count} votes"));
            if fault == CallFault::None { Ok(votes) } else { Err(call.failure()) }
        })
        .await
    }

    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<(), StoreError> {
        let partition = duplicates[0].position.partition;
        let call = self.describe("ledger", "record duplicates", partition, || format!("{duplicates:?}"));
        self.call(call, move |world| {
            if !world.is(Mutant::UnrecordedDuplicates) {
                let recorded = duplicates.iter().map(|duplicate| (duplicate.position, duplicate.original));
                Arc::make_mut(&mut world.ledger).duplicates.extend(recorded);
            }
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
            let counts = world.ledger.summaries.get(&partition).cloned().unwrap_or_default();
            TracedSummary(Summary { cut_off: world.recorded(partition).cut_off, counts })
        };
        Ok(self.call(call, read).await?.0)
    }
}

#[async_trait]
impl LedgerRetention for Process {
    async fn put_summary(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
        let (process, Summary { cut_off, counts }) = (self.id, summary);
        if self.lock().is(Mutant::PurgedBeforeSummary) {
            let call = self.describe("ledger", "purge_expired", partition, || format!("below {cut_off}, too early"));
            let purge = move |world: &mut World| {
                let cut_off = cut_off.min(world.expirable_below(partition));
                world.purge_expired(partition, cut_off)
            };
            self.call(call, purge).await?;
        }
        let call = self.describe("ledger", "put_summary", partition, || format!("from {from} to {cut_off}"));
        self.request(call, move |call, world, fault| {
            let put =
                if fault == CallFault::Refused { None } else { world.put_summary(partition, from, cut_off, counts) };
            call.trace(world, process, format_args!("{put:?}, {fault:?}"));
            match put {
                Some(put) if fault == CallFault::None => Ok(put),
                _ => Err(call.failure()),
            }
        })
        .await
    }

    async fn purge_expired(&self, partition: Partition) -> Result<u64, StoreError> {
        let call = self.describe("ledger", "purge_expired", partition, String::new);
        let purge = move |world: &mut World| world.purge_expired(partition, world.recorded(partition).cut_off);
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
