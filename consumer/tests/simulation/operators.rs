//! What operators do to the stores during a history.

use std::sync::Arc;

use rand::RngExt as _;
use votes::Offset;

use crate::{
    history::History,
    members::Member,
    mutants::Mutant,
    process::Process,
    profile::Event,
    reader::Phase,
    world::{LedgerState, ProcessKind, TalliesState, World},
};

impl History {
    pub(crate) fn roll_tallies_back(&mut self) {
        let mut world = self.world.lock();
        // Half of the times, a backup that has only a part of the votes of a summary, if there is one.
        let has_part = |backup: &&Arc<TalliesState>| {
            let mut positions = backup.positions.iter();
            positions.any(|(partition, tallied)| (Offset(1)..world.recorded(*partition).cut_off).contains(tallied))
        };
        let backups: Vec<&Arc<TalliesState>> = world.tallies_backups.iter().filter(has_part).collect();
        let is_partial = !backups.is_empty() && self.rng.random_bool(0.5);
        let backups = if is_partial { backups } else { world.tallies_backups.iter().collect() };
        let backup = Arc::clone(backups[self.rng.random_range(0..backups.len())]);
        world.count_event("roll-backs of the tallies");
        world.trace_line(|| format!("the tallies are rolled back to {:?}", backup.positions));
        world.tallies = match self.plan.mutant {
            Some(Mutant::PositionsRolledBack) => {
                Arc::new(TalliesState { counts: world.tallies.counts.clone(), ..TalliesState::clone(&backup) })
            }
            Some(Mutant::CountsRolledBack) => {
                let TalliesState { positions, last, .. } = TalliesState::clone(&world.tallies);
                Arc::new(TalliesState { positions, last, counts: backup.counts.clone() })
            }
            _ => backup,
        };
    }

    pub(crate) fn wipe_tallies(&mut self) {
        {
            let mut world = self.world.lock();
            world.count_event("wipes of the tallies");
            world.trace_line(|| "the tallies are wiped".to_owned());
            if self.plan.mutant != Some(Mutant::TwoStepWipe) {
                world.tallies = Arc::default();
                return;
            }
        }
        let wipe = |world: &mut World, is_positions: bool| {
            let tallies = Arc::make_mut(&mut world.tallies);
            if is_positions {
                tallies.positions.clear();
                tallies.last.clear();
            } else {
                tallies.counts.contests.clear();
            }
            world.trace_line(|| format!("wiped: {}", if is_positions { "positions" } else { "counts" }));
        };
        let operator = Process::new(&self.world, ProcessKind::Other);
        let positions_first = self.rng.random();
        wipe(&mut self.world.lock(), positions_first);
        let second_step = async move {
            let call = operator.describe("tallies", "wipe", None, String::new);
            let _ = operator.call(call, move |world| wipe(world, !positions_first)).await;
        };
        self.auditors.push(tokio::spawn(second_step));
    }

    /// Replaces the ledger by a backup. The consumers are stopped, and none of their requests is in flight. The
    /// checkpoints may be older than the documents, as in a backup that was taken during counting and that read the
    /// checkpoints first.
    pub(crate) async fn restore_ledger(&mut self) {
        if self.plan.mutant == Some(Mutant::RestoredWhileCounting) {
            self.replace_ledger();
            return;
        }
        // If there are no duplicates, a consumer that is idle may keep running during the restore. It detects the hole
        // with its next batch, or when it checks the stores. But a consumer that expires records of the log must be
        // stopped: it believes that they are recorded.
        let may_stay = self.profile.duplicates == 0.0 && !self.profile.has(Event::TrimLog);
        let world = self.world.clone();
        let stays = |member: &Member| {
            let world = world.lock();
            let readers = &world.processes[member.process].readers;
            may_stay
                && !world.has_requests(member.process)
                && readers.values().all(|reader| !reader.is_assigned || reader.phase == Phase::Idle)
        };
        self.stop_all(&stays).await;
        let stayed = self.members.len();
        self.replace_ledger();
        if stayed > 0 {
            self.world.lock().count_event("consumers that were idle during a restore");
        }
        self.replace_dead();
    }

    fn replace_ledger(&mut self) {
        let partitions: Vec<_> = self.partitions().collect();
        let mut world = self.world.lock();
        let documents = Arc::clone(&world.ledger_backups[self.rng.random_range(0..world.ledger_backups.len())]);
        let checkpoints = Arc::clone(&world.ledger_backups[self.rng.random_range(0..world.ledger_backups.len())]);
        let checkpoint = |ledger: &LedgerState, partition| ledger.checkpoints.get(&partition).copied();
        let can_combine = |partition: &votes::Partition| {
            let (older, newer) = (checkpoint(&checkpoints, *partition), checkpoint(&documents, *partition));
            older.map(|checkpoint| checkpoint.offset) <= newer.map(|checkpoint| checkpoint.offset)
                // If votes expired between the two backups, the checkpoints and the documents must be of the same
                // backup.
                && older.unwrap_or_default().cut_off == newer.unwrap_or_default().cut_off
        };
        let (documents, checkpoints) = match partitions.iter().all(can_combine) {
            true if self.plan.mutant == Some(Mutant::DocumentsOlder) => (checkpoints, documents),
            true => (documents, checkpoints),
            false => (Arc::clone(&documents), documents),
        };
        let ledger = LedgerState { checkpoints: checkpoints.checkpoints.clone(), ..LedgerState::clone(&documents) };
        world.count_event("restores of the ledger");
        world.trace_line(|| {
            let count = ledger.votes.len();
            format!("the ledger is restored: {:?}, {count} documents", ledger.checkpoints)
        });
        world.ledger = Arc::new(ledger);
        world.is_restored = true;
    }
}
