//! The log reader of one process.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use rand::RngExt as _;
use tokio::time::{Duration, Instant};
use votes::{
    Assignment, BallotKey, Batch, Bounds, Checkpoint, DeadLetter, DeadLetterPart, DeadLetterReader, LogReader,
    LoggedVote, Offset, Partition, Retention, StoreError, UnixMillis,
};

use crate::{
    log::VoteGenerator,
    mutants::Mutant,
    operations::WaitsFor,
    process::Process,
    world::{CallFault, ProcessKind, World},
};

/// The maximum number of reconciliations of one task in [`RECONCILIATION_WINDOW`] without a counted batch. More of them
/// would load the stores.
const MAX_RECONCILIATIONS: usize = 6;

const RECONCILIATION_WINDOW: Duration = Duration::from_secs(1);

/// The state of one process reading one partition, and what the process did last with what it read.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Reader {
    /// Whether the log has assigned the partition to this process.
    pub(crate) is_assigned: bool,
    /// Whether the process has received the notice that the partition is revoked, and has not ended the task.
    pub(crate) is_revoked: bool,
    /// Whether the task has been notified that it must stop.
    pub(crate) is_stopping: bool,
    /// Whether the log has lost the reader's fetch. It returns no record until the next seek.
    pub(crate) is_stalled: bool,
    /// The offset at which the next batch begins.
    pub(crate) read_offset: Offset,
    pub(crate) phase: Phase,
    /// Whether counting a batch has failed, and the task has not reconciled since.
    pub(crate) must_reconcile: bool,
    /// The offsets of the dead letters that the task has sent, with a reply that arrived.
    sent_dead_letters: std::collections::BTreeSet<Offset>,
    /// When the task began to read after a reconciliation, since the last counted batch.
    reconciliations: Vec<Instant>,
    /// For mutants: the batch that the process read last.
    pub(crate) batch: Option<Batch>,
    /// For mutants: the candidates that the process inserted last.
    pub(crate) candidates: Option<Arc<[LoggedVote]>>,
    /// For mutants: the arguments of a checkpoint that is set later.
    pub(crate) deferred_checkpoint: Option<(Offset, Checkpoint)>,
    /// For mutants: the T that the task believes in, although its last addition was fenced.
    pub(crate) believed_tallied: Option<Offset>,
    /// For mutants: the dead letters that are stored later.
    deferred_dead_letters: Vec<DeadLetter>,
    /// For mutants: the offset that was committed when the reader was set to an offset.
    committed_at_seek: Option<Offset>,
    /// For mutants: the end of the last batch, if counting it failed.
    end_of_failed_batch: Option<Offset>,
}

/// What the task of a partition does, as far as its calls show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Reconciling,
    /// The task is between two batches.
    Idle,
    Counting,
}

impl Reader {
    /// The task has ended. A new task begins with a new state.
    pub(crate) fn end_task(&mut self) {
        *self = Self { is_assigned: self.is_assigned, ..Self::default() };
    }

    /// A call of the task has failed, so the task reconciles next.
    pub(crate) fn note_failure(&mut self) {
        if self.phase == Phase::Counting {
            self.must_reconcile = true;
            self.end_of_failed_batch = self.batch.as_ref().map(|batch| batch.to);
        }
        self.phase = Phase::Reconciling;
    }
}

impl World {
    /// Sets the offset from which a process reads.
    fn seek(&mut self, process: usize, partition: Partition, at: Offset) -> Result<(), StoreError> {
        let committed = self.committed.get(&partition).copied();
        let is_consumer = self.processes[process].kind != ProcessKind::Other;
        let reader = self.processes[process].reader(partition);
        if is_consumer && !reader.is_assigned {
            let problem = format!("partition {partition} is another consumer's now");
            self.trace_line(|| format!("  process {process}: seek {partition} -> {problem}"));
            return Err(StoreError::new("vote log", problem));
        }
        (reader.read_offset, reader.committed_at_seek, reader.is_stalled) = (at, committed, false);
        Ok(())
    }

    /// Reads the next batch for a process, and advances the process's read offset.
    fn next_batch(&mut self, process: usize, partition: Partition, max_records: usize) -> Result<Batch, StoreError> {
        let mutant = self.mutant.filter(|_| self.processes[process].kind != ProcessKind::Other);
        let reader = self.processes[process].reader(partition);
        let is_single = max_records == 1;
        let mut from = reader.read_offset;
        match mutant {
            Some(Mutant::CommittedOffset) if !is_single => from = reader.committed_at_seek.take().unwrap_or(from),
            Some(Mutant::SkippedBatch) if !is_single => from = reader.end_of_failed_batch.take().unwrap_or(from),
            _ => {}
        }
        let failed = StoreError::new("vote log", format!("simulated failure in partition {partition}"));
        if from < self.log(partition).bounds().start || self.draw_fault() != CallFault::None {
            self.trace_line(|| format!("  process {process}: reads {partition} from {from} -> failed"));
            return Err(failed);
        }
        if !self.log(partition).has_records_from(from) {
            // Only a mutant can be here.
            self.processes[process].reader(partition).read_offset = from;
            return Err(failed);
        }
        let max_records = if is_single { 1 } else { self.rng.random_range(1..=max_records.min(self.max_batch)) };
        let mut batch = self.log[usize::from(partition.0)].read(from, max_records, &mut self.rng);
        self.trace_line(|| {
            let (from, to, count) = (batch.from, batch.to, batch.records.len());
            format!("  process {process}: reads {partition} [{from}, {to}) -> {count} records")
        });
        match mutant {
            Some(Mutant::DerivedKey) => {
                let has_many_votes = self.processes[process].has_many_votes;
                for vote in batch.records.iter_mut().filter_map(|record| record.vote.as_mut().ok()) {
                    vote.key = VoteGenerator::derived_key(vote, has_many_votes);
                }
            }
            Some(Mutant::LastDuplicate) => {
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
        let reader = self.processes[process].reader(partition);
        reader.read_offset = batch.to;
        if !is_single {
            reader.phase = Phase::Counting;
            reader.batch = mutant.is_some().then(|| batch.clone());
        }
        Ok(batch)
    }

    fn commit(&mut self, process: usize, partition: Partition, position: Offset) {
        self.committed.insert(partition, position);
        let reader = self.processes[process].reader(partition);
        let letters = std::mem::take(&mut reader.deferred_dead_letters);
        self.dead_letters.extend(letters.into_iter().map(|letter| (letter.position, letter)));
    }

    /// Notes that a task commits: it has counted a batch, or it begins to read after a reconciliation.
    fn note_commit(&mut self, process: usize, partition: Partition) {
        let now = Instant::now();
        let reader = self.processes[process].reader(partition);
        if reader.phase == Phase::Counting {
            reader.reconciliations.clear();
        } else {
            reader.reconciliations.push(now);
        }
        (reader.phase, reader.must_reconcile) = (Phase::Idle, false);
        let recent = |at: &&Instant| **at + RECONCILIATION_WINDOW > now;
        let count = reader.reconciliations.iter().filter(recent).count();
        self.count_event("reconciliations");
        if count > MAX_RECONCILIATIONS {
            self.report_violation(|| {
                let window = RECONCILIATION_WINDOW;
                format!(
                    "process {process} reconciles partition {partition} {count} times in {window:?} without a pause"
                )
            });
        }
    }

    /// Deletes counted records from the log, if records of the partition must expire. Also deletes the backups of the
    /// ledger that need these records. Returns the number of deleted records.
    fn expire_log(&mut self, partition: Partition, counted: Offset) -> u64 {
        let recorded = self.recorded(partition).offset;
        if counted > recorded {
            self.report_violation(|| format!("the log may delete {partition} below {counted}, but B is {recorded}"));
        }
        if !self.trim_due.remove(&partition) {
            return 0;
        }
        let start = Offset(self.rng.random_range(0..=counted.0));
        let former = self.log(partition).bounds().start;
        if start <= former {
            return 0;
        }
        let has_all = |backup: &Arc<crate::world::LedgerState>| {
            backup.checkpoints.get(&partition).is_some_and(|checkpoint| checkpoint.offset >= start)
        };
        self.ledger_backups.retain(has_all);
        if self.ledger_backups.is_empty() {
            self.ledger_backups.push(Arc::clone(&self.ledger));
        }
        self.count_event("trims of the log");
        self.trace_line(|| format!("log {partition} now begins at {start}"));
        self.log[usize::from(partition.0)].trim(start);
        start.0 - former.0
    }

    fn store_dead_letters(&mut self, process: usize, partition: Partition, letters: Vec<DeadLetter>) {
        let is_deferred = self.is(Mutant::DeadLetterLate);
        let reader = self.processes[process].reader(partition);
        let again = letters
            .iter()
            .map(|letter| letter.position)
            .find(|position| reader.sent_dead_letters.contains(&position.offset));
        if is_deferred {
            reader.deferred_dead_letters = letters;
        } else {
            self.dead_letters.extend(letters.into_iter().map(|letter| (letter.position, letter)));
        }
        if let Some(position) = again {
            self.report_violation(|| format!("a task of process {process} sends the dead letter {position} again"));
        }
    }
}

#[async_trait]
impl LogReader for Process {
    fn partitions(&self) -> u16 {
        u16::try_from(self.lock().log.len()).expect("few partitions")
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        let process = self.id;
        Ok(self.wait_for(WaitsFor::Notice, move |world| world.receive_notice(process)).await)
    }

    async fn release(&self, partition: Partition) {
        self.lock().release(self.id, partition);
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        let call = self.describe("vote log", "bounds", partition, String::new);
        let process = self.id;
        let read = move |world: &mut World| {
            let bounds = world.log(partition).bounds();
            if world.is(Mutant::EndNotAsked) && world.processes[process].kind != ProcessKind::Other {
                let reader = world.processes[process].reader(partition);
                // While the task reconciles, it verifies the log.
                if reader.phase == Phase::Idle {
                    return Bounds { end: reader.read_offset.max(bounds.start), ..bounds };
                }
            }
            bounds
        };
        self.call(call, read).await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        self.lock().seek(self.id, partition, at)
    }

    async fn next_batch(&self, partition: Partition, max_records: usize) -> Result<Batch, StoreError> {
        let process = self.id;
        let read = move |world: &mut World| world.next_batch(process, partition, max_records);
        self.wait_for(WaitsFor::Records(partition), read).await
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        let process = self.id;
        self.lock().note_commit(process, partition);
        let call = self.describe("vote log", "commit", partition, || position.to_string());
        self.call(call, move |world| world.commit(process, partition, position)).await
    }

    async fn expire(&self, counted: &[(Partition, Offset)], _: Retention, _: UnixMillis) -> Result<u64, StoreError> {
        let counted = counted.to_vec();
        let call = self.describe("vote log", "expire", None, || format!("{counted:?}"));
        let expire = move |world: &mut World| {
            counted.into_iter().map(|(partition, counted)| world.expire_log(partition, counted)).sum::<u64>()
        };
        self.call(call, expire).await
    }

    async fn send_to_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
        let (process, partition, letters) = (self.id, dead_letters[0].position.partition, dead_letters.to_vec());
        let describe =
            || format!("{:?}", dead_letters.iter().map(|letter| letter.position.offset.0).collect::<Vec<_>>());
        let call = self.describe("vote log", "dead letters", partition, describe);
        self.call(call, move |world| world.store_dead_letters(process, partition, letters)).await?;
        let sent = dead_letters.iter().map(|letter| letter.position.offset);
        self.lock().processes[process].reader(partition).sent_dead_letters.extend(sent);
        Ok(())
    }

    async fn dead_letters(&self, partition: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError> {
        let call = self.describe("vote log", "read dead letters", partition, String::new);
        let read = move |world: &mut World| {
            let letters = world.dead_letters.values().filter(|letter| letter.position.partition == partition);
            letters.cloned().collect::<Vec<_>>()
        };
        let letters = self.call(call, read).await?;
        Ok(Box::new(Some(DeadLetterPart { letters, foreign: Vec::new() })))
    }
}
