//! The simulated tallies.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::Arc,
};

use async_trait::async_trait;
use votes::{
    Added, AlbumVotes, ClearCondition, ContestCounts, ContestId, Counts, LogPosition, LoggedVote, Offset, Others,
    Partition, RateWindow, Snapshot, StoreError, Tallies, TalliesPosition, Tally, UnixMillis, Window,
};

use crate::{
    mutants::Mutant,
    process::Process,
    reader::Phase,
    world::{ProcessKind, TalliesState, World},
};

impl World {
    fn position(&mut self, process: usize, partition: Partition) -> TalliesPosition {
        let position = self.tallies_position(partition);
        let is_consumer = self.processes[process].kind != ProcessKind::Other;
        if self.is(Mutant::FencedIsAdded)
            && is_consumer
            && let reader = self.processes[process].reader(partition)
            && reader.phase == Phase::Idle
            && let Some(offset) = reader.believed_tallied
        {
            return TalliesPosition { offset, ..position };
        }
        if self.is(Mutant::FoldedToStored)
            && is_consumer
            && self.processes[process].reader(partition).phase == Phase::Reconciling
        {
            let at = |offset| LogPosition { partition, offset };
            let stored = self.ledger.votes.range(at(position.offset)..=at(Offset(u64::MAX))).next_back();
            if let Some(end) = stored.map(|(position, _)| position.offset.next()) {
                let votes = self.range(partition, position.offset, end, usize::MAX);
                self.add(partition, position.offset, end.into(), Counts::of(&votes));
                return TalliesPosition { offset: end, ..position };
            }
        }
        position
    }

    /// Adds the counts and moves T, if T is `from`.
    fn add(&mut self, partition: Partition, from: Offset, to: TalliesPosition, counts: Counts) -> Added {
        let TalliesPosition { offset: to, last } = to;
        let tallied = self.tallied(partition);
        let is_allowed = match self.mutant {
            Some(Mutant::NoFence) => true,
            Some(Mutant::NewerThan) => to > tallied,
            _ => tallied == from,
        };
        if !is_allowed {
            self.count_event("fenced additions");
            return Added::Fenced(tallied);
        }
        if to > self.recorded.get(&partition).copied().unwrap_or_default() {
            self.report_violation(|| format!("partition {partition}: T becomes {to}, which was never recorded"));
        }
        let (mut truth, mut added) = (self.log(partition).true_counts(tallied, to), counts.clone());
        if tallied < self.recorded(partition).cut_off {
            truth.drop_expiring_windows();
            added.drop_expiring_windows();
            self.count_event("additions of summaries");
        }
        if truth != added {
            self.report_violation(|| {
                format!("partition {partition}: the addition to [{tallied}, {to}) is not the count of its originals")
            });
        }
        let is_wrong = |(offset, id): &(Offset, _)| *offset >= to || !self.log(partition).has_vote(*offset, *id);
        if let Some((offset, id)) = last.filter(is_wrong) {
            self.report_violation(|| {
                format!("partition {partition}: the last vote below {to} is not {id} at {offset}")
            });
        }
        let moves_position = !self.is(Mutant::TwoCalls);
        let state = Arc::make_mut(&mut self.tallies);
        state.counts.merge(counts);
        state.last.extend(last.map(|last| (partition, last)));
        if moves_position {
            state.positions.insert(partition, to);
        }
        Added::Added
    }

    /// Deletes all counts and positions if the condition holds. Returns whether they were deleted.
    fn clear(&mut self, condition: ClearCondition) -> bool {
        if let ClearCondition::IfAt(partition, offset) = condition
            && self.tallied(partition) != offset
            && !self.is(Mutant::UnconditionalClear)
        {
            self.count_event("clears that another consumer had made");
            return false;
        }
        // Only tallies that have a part of a summary must be cleared.
        let has_part = |(partition, tallied): (&Partition, &Offset)| {
            (Offset(1)..self.recorded(*partition).cut_off).contains(tallied)
        };
        if !self.tallies.positions.iter().any(has_part) {
            self.report_violation(|| "the tallies are cleared, but no partition has lost votes".to_owned());
        }
        self.count_event("clears of the tallies");
        if self.is(Mutant::SummaryOnTop) {
            Arc::make_mut(&mut self.tallies).positions.clear();
        } else {
            self.tallies = Arc::default();
        }
        true
    }
}

#[async_trait]
impl Tallies for Process {
    async fn position(&self, partition: Partition) -> Result<TalliesPosition, StoreError> {
        let process = self.id;
        let call = self.describe("tallies", "position", partition, String::new);
        self.call(call, move |world| world.position(process, partition)).await
    }

    async fn announce_recount(&self, _: Partition, _: Offset) -> Result<(), StoreError> {
        Ok(())
    }

    async fn clear(&self, condition: ClearCondition) -> Result<bool, StoreError> {
        let partition = match condition {
            ClearCondition::IfAt(partition, _) => Some(partition),
            ClearCondition::Always => None,
        };
        let call = self.describe("tallies", "clear", partition, || format!("{condition:?}"));
        self.call(call, move |world| world.clear(condition)).await
    }

    async fn add(
        &self,
        partition: Partition,
        from: Offset,
        to: TalliesPosition,
        counts: Counts,
    ) -> Result<Added, StoreError> {
        let (process, mutant) = (self.id, self.lock().mutant);
        let counts = match mutant {
            Some(Mutant::NotDeduplicated) => self.counts_with_duplicates(partition, from, to.offset).unwrap_or(counts),
            _ => counts,
        };
        let arguments = || format!("{} votes, [{from}, {})", counts.total(), to.offset);
        let call = self.describe("tallies", "add", partition, arguments);
        let add = move |world: &mut World| {
            let added = world.add(partition, from, to, counts);
            if added != Added::Added {
                world.note_other_positions(process, partition);
            }
            added
        };
        let added = self.call(call, add).await?;
        match mutant {
            Some(Mutant::TwoCalls) if added == Added::Added => {
                let call = self.describe("tallies", "set T", partition, || format!("to {}", to.offset));
                let set = move |world: &mut World| {
                    Arc::make_mut(&mut world.tallies).positions.insert(partition, to.offset);
                };
                self.call(call, set).await?;
            }
            Some(Mutant::TalliesFirst) if added == Added::Added => {
                let deferred = self.lock().processes[process].reader(partition).deferred_checkpoint.take();
                if let Some((from, checkpoint)) = deferred {
                    let call = self.describe("ledger", "advance B", partition, || "deferred".to_owned());
                    let raise = move |world: &mut World| world.advance_checkpoint(partition, from, checkpoint);
                    self.call(call, raise).await?;
                }
            }
            Some(Mutant::FencedIsAdded) => {
                let mut world = self.lock();
                let reader = world.processes[process].reader(partition);
                reader.believed_tallied = (added != Added::Added).then_some(to.offset);
                if reader.batch.is_some() {
                    reader.phase = Phase::Counting;
                }
                return Ok(Added::Added);
            }
            _ => {}
        }
        Ok(added)
    }

    /// Returns only the total and the sum of the positions.
    async fn tally(&self, contest: &ContestId, _: usize) -> Result<Tally, StoreError> {
        let world = self.lock();
        Ok(Tally {
            contest: contest.clone(),
            total: world.tallies.counts.contests.get(contest).map_or(0, ContestCounts::total),
            version: 0,
            bands: Vec::new(),
            others: Others::default(),
            producers: BTreeMap::new(),
            recounting: false,
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
        let call = self.describe("tallies", "snapshot", None, String::new);
        let snapshot = |world: &mut World| {
            let TalliesState { positions, counts, .. } = TalliesState::clone(&world.tallies);
            TracedSnapshot(Snapshot { positions, contests: counts.contests })
        };
        Ok(self.call(call, snapshot).await?.0)
    }

    async fn changed(&self, _: u64) -> Result<u64, StoreError> {
        unreachable!("pages are not simulated")
    }
}

impl Process {
    /// Returns the counts of a batch in which the duplicates of its own originals count, too. Returns `None` while the
    /// task of the partition reconciles.
    fn counts_with_duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Option<Counts> {
        let world = self.lock();
        let reader = world.processes[self.id].readers.get(&partition)?;
        let batch = reader.batch.as_ref().filter(|_| reader.phase == Phase::Counting)?;
        let votes: Vec<LoggedVote> = batch
            .records
            .iter()
            .filter(|record| (from..to).contains(&record.offset))
            .filter_map(|record| {
                let vote = record.vote.as_ref().ok()?.clone();
                let original = world.ledger.keys.get(&vote.key)?.offset;
                let position = LogPosition { partition, offset: record.offset };
                (batch.from..batch.to).contains(&original).then_some(LoggedVote { position, vote })
            })
            .collect();
        Some(Counts::of(&votes))
    }
}

/// A snapshot that has the same trace in each run of a seed. Hash maps have no stable order, so only sums are traced.
struct TracedSnapshot(Snapshot);

impl Debug for TracedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let votes: u64 = self.0.contests.values().map(ContestCounts::total).sum();
        write!(f, "{votes} votes at {:?}", self.0.positions)
    }
}
