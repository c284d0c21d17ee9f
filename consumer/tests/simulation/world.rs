//! The world of one history: the log, the contents of the stores, the processes, and their pending calls.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, rngs::SmallRng};
use tokio::{sync::Notify, time::Instant};
use votes::{
    BallotKey, Checkpoint, Counts, DeadLetter, Duplicate, LogPosition, LoggedVote, Offset, Partition, Summary,
    TalliesPosition, UnixMillis, Vote, VoteId,
};

use crate::{
    group::{Group, Notice},
    log::PartitionLog,
    mutants::Mutant,
    operations::Operation,
    reader::Reader,
};

/// The time at which each history begins: 2026-11-21T12:00:00Z.
const BEGINNING: UnixMillis = UnixMillis(1_795_262_400_000);

/// The world, shared by all processes.
#[derive(Clone)]
pub(crate) struct SharedWorld(Arc<Mutex<World>>);

impl SharedWorld {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct World {
    pub(crate) rng: SmallRng,
    pub(crate) faults: Faults,
    pub(crate) mutant: Option<Mutant>,
    /// The maximum number of records of a batch.
    pub(crate) max_batch: usize,
    /// The maximum number of duplicates that one call purges. It is small, so that several calls are needed.
    pub(crate) max_purged: usize,
    pub(crate) log: Vec<PartitionLog>,
    pub(crate) ledger: Arc<LedgerState>,
    pub(crate) tallies: Arc<TalliesState>,
    pub(crate) ledger_backups: Vec<Arc<LedgerState>>,
    pub(crate) tallies_backups: Vec<Arc<TalliesState>>,
    pub(crate) dead_letters: BTreeMap<LogPosition, DeadLetter>,
    pub(crate) committed: BTreeMap<Partition, Offset>,
    /// The highest B that each partition ever had.
    pub(crate) recorded: BTreeMap<Partition, Offset>,
    /// The partitions whose votes must expire from the ledger.
    pub(crate) expiry_due: BTreeSet<Partition>,
    /// The partitions whose records must expire from the log.
    pub(crate) trim_due: BTreeSet<Partition>,
    /// For each partition, the offset below which no original gets a new duplicate, unless votes expire by age. This
    /// simulates a retention that is longer than clients retry.
    pub(crate) horizon: BTreeMap<Partition, Offset>,
    /// The retention of the ledger, if votes expire by age.
    pub(crate) age: Option<Duration>,
    /// When the history began.
    pub(crate) start: Instant,
    /// Until then, a majority of the ledger's servers does not have the latest documents, so they can't be read.
    pub(crate) snapshot_stalled_until: Option<Instant>,
    /// Whether the ledger was ever restored.
    pub(crate) is_restored: bool,
    /// Whether the current configuration allows many votes per voter in every contest.
    pub(crate) has_many_votes: bool,
    /// Whether each call takes effect at once, so that no history is needed.
    pub(crate) is_immediate: bool,
    /// Whether consumers may receive the changes of their assignment late.
    pub(crate) has_late_notices: bool,
    /// The number of steps of the history so far.
    pub(crate) step: u32,
    pub(crate) groups: Vec<Group>,
    /// The state of each process, by its number.
    pub(crate) processes: Vec<ProcessState>,
    /// The calls that the history has not executed, or not answered.
    pub(crate) operations: Vec<Operation>,
    pub(crate) last_operation: u64,
    /// Notified when a process begins a call.
    pub(crate) has_begun: Arc<Notify>,
    /// The partitions whose tasks have ended since the last step.
    pub(crate) released: Vec<(usize, Partition)>,
    /// The first violation.
    pub(crate) violation: Option<String>,
    /// How often each event occurred.
    pub(crate) event_counts: BTreeMap<&'static str, u64>,
    /// A description of each call and event, if this history is traced.
    pub(crate) trace: Option<String>,
}

/// The probabilities of the faults of a call to a store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The probability that a call has no effect.
    pub(crate) refused: f64,
    /// The probability that a call takes effect, but its reply is lost.
    pub(crate) lost: f64,
    /// The probability that an insert fails after it stored some of its votes.
    pub(crate) partial: f64,
}

/// The fault of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFault {
    None,
    Refused,
    ReplyLost,
}

/// The contents of the ledger, or of a backup of it.
#[derive(Clone, Default)]
pub(crate) struct LedgerState {
    pub(crate) votes: BTreeMap<LogPosition, Arc<LoggedVote>>,
    pub(crate) keys: HashMap<BallotKey, LogPosition>,
    pub(crate) checkpoints: BTreeMap<Partition, Checkpoint>,
    pub(crate) duplicates: BTreeMap<LogPosition, Duplicate>,
    /// For each vote with a recorded duplicate, the highest offset of a duplicate.
    pub(crate) last_duplicates: BTreeMap<LogPosition, Offset>,
    /// The summaries of the partitions whose votes have expired.
    pub(crate) summaries: BTreeMap<Partition, Summary>,
    /// The latest documents. A replica that lags behind does not have them yet.
    pub(crate) latest: Vec<LogPosition>,
}

/// The contents of the tallies, or of a backup of them.
#[derive(Clone, Default)]
pub(crate) struct TalliesState {
    pub(crate) positions: BTreeMap<Partition, Offset>,
    /// The last vote of each partition.
    pub(crate) last: BTreeMap<Partition, (Offset, VoteId)>,
    pub(crate) counts: Counts,
}

/// The kind of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessKind {
    /// A consumer, with the index of its consumer group.
    Consumer(usize),
    /// An auditor, or an operator.
    Other,
}

/// The state of one process, without that of its tasks.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct ProcessState {
    pub(crate) kind: ProcessKind,
    /// Whether the process is paused: none of its calls is executed, unless it is in flight already.
    pub(crate) is_paused: bool,
    /// Whether the process was killed.
    pub(crate) is_dead: bool,
    /// Whether the process has to shut down, and its tasks have been notified.
    pub(crate) is_stopping: bool,
    /// Whether the configuration of the process allows many votes per voter in every contest.
    pub(crate) has_many_votes: bool,
    /// The changes of the assignment that the process has not received yet.
    pub(crate) notices: VecDeque<Notice>,
    /// The partitions that the process has when it has received all notices.
    pub(crate) held: BTreeSet<Partition>,
    /// The state of reading each partition.
    pub(crate) readers: BTreeMap<Partition, Reader>,
    /// The number of calls that the process has begun.
    pub(crate) calls: u64,
}

impl ProcessState {
    pub(crate) fn new(kind: ProcessKind, has_many_votes: bool) -> Self {
        Self {
            kind,
            is_paused: false,
            is_dead: false,
            is_stopping: false,
            has_many_votes,
            notices: VecDeque::new(),
            held: BTreeSet::new(),
            readers: BTreeMap::new(),
            calls: 0,
        }
    }

    pub(crate) fn reader(&mut self, partition: Partition) -> &mut Reader {
        self.readers.entry(partition).or_default()
    }
}

impl World {
    /// Creates a world with an empty log, empty stores and no faults.
    pub(crate) fn new(partitions: u16, rng: SmallRng) -> Self {
        Self {
            rng,
            faults: Faults::default(),
            mutant: None,
            max_batch: 8,
            max_purged: 3,
            log: (0..partitions).map(|partition| PartitionLog::new(Partition(partition))).collect(),
            ledger: Arc::default(),
            tallies: Arc::default(),
            ledger_backups: vec![Arc::default()],
            tallies_backups: vec![Arc::default()],
            dead_letters: BTreeMap::new(),
            committed: BTreeMap::new(),
            recorded: BTreeMap::new(),
            expiry_due: BTreeSet::new(),
            trim_due: BTreeSet::new(),
            horizon: BTreeMap::new(),
            age: None,
            start: Instant::now(),
            snapshot_stalled_until: None,
            is_restored: false,
            has_many_votes: false,
            is_immediate: false,
            has_late_notices: true,
            step: 0,
            groups: Vec::new(),
            processes: Vec::new(),
            operations: Vec::new(),
            last_operation: 0,
            has_begun: Arc::default(),
            released: Vec::new(),
            violation: None,
            event_counts: BTreeMap::new(),
            trace: None,
        }
    }

    /// Returns the time of an exact clock.
    pub(crate) fn now(&self) -> UnixMillis {
        BEGINNING.after(self.start.elapsed())
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..u16::try_from(self.log.len()).expect("few partitions")).map(Partition)
    }

    pub(crate) fn log(&self, partition: Partition) -> &PartitionLog {
        &self.log[usize::from(partition.0)]
    }

    pub(crate) fn recorded(&self, partition: Partition) -> Checkpoint {
        self.ledger.checkpoints.get(&partition).copied().unwrap_or_default()
    }

    pub(crate) fn tallied(&self, partition: Partition) -> Offset {
        self.tallies.positions.get(&partition).copied().unwrap_or_default()
    }

    pub(crate) fn tallies_position(&self, partition: Partition) -> TalliesPosition {
        TalliesPosition { offset: self.tallied(partition), last: self.tallies.last.get(&partition).copied() }
    }

    pub(crate) fn count_event(&mut self, event: &'static str) {
        *self.event_counts.entry(event).or_default() += 1;
    }

    pub(crate) fn trace_line(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{}", line());
        }
    }

    pub(crate) fn report_violation(&mut self, description: impl FnOnce() -> String) {
        if self.violation.is_none() || self.trace.is_some() {
            let description = description();
            self.trace_line(|| format!("VIOLATION: {description}"));
            self.violation.get_or_insert(description);
        }
    }

    pub(crate) fn draw_fault(&mut self) -> CallFault {
        let Faults { refused, lost, .. } = self.faults;
        let draw: f64 = if refused + lost > 0.0 { self.rng.random() } else { 1.0 };
        if draw < refused {
            self.count_event("refused calls");
            CallFault::Refused
        } else if draw < refused + lost {
            self.count_event("lost replies");
            CallFault::ReplyLost
        } else {
            CallFault::None
        }
    }

    /// Returns whether a client may send this duplicate: a client does not try longer than the ledger recognises
    /// duplicates.
    pub(crate) fn may_be_duplicate(&self, partition: Partition, vote: &Vote) -> bool {
        let Some(original) = self.log(partition).original(&vote.key) else { return true };
        match self.age {
            Some(age) => vote.accepted_at.since(original.vote.accepted_at) <= age,
            None => original.position.offset >= self.horizon.get(&partition).copied().unwrap_or_default(),
        }
    }

    /// Returns the duplicates of the ledger with offsets in `[from, to)`.
    pub(crate) fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Vec<Duplicate> {
        let position = |offset| LogPosition { partition, offset };
        let recorded = self.ledger.duplicates.range(position(from)..position(to.max(from)));
        recorded.map(|(_, duplicate)| duplicate.clone()).collect()
    }
}
