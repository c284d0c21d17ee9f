//! The consumer groups. A group has one owner for each partition. But an owner that has lost a partition may receive
//! this notice late, and may count on until then: it is a zombie.

use std::collections::BTreeSet;

use rand::RngExt as _;
use votes::{Assignment, Partition};

use crate::world::{ProcessKind, World};

/// The longest delay of a notice, in steps of the history.
const MAX_NOTICE_DELAY: u32 = 30;

/// A consumer group: its owners, as the brokers know them.
#[derive(Default)]
pub(crate) struct Group {
    /// The owner of each partition, by the partition's number.
    owners: Vec<Option<usize>>,
    /// The partitions whose former owner must end its task before the owner gets the partition.
    waiting: Vec<WaitingMove>,
}

struct WaitingMove {
    partition: Partition,
    former: usize,
}

/// A change of the assignment that a process receives later.
pub(crate) struct Notice {
    pub(crate) assignment: Assignment,
    /// The first step of the history at which the process can receive the notice.
    pub(crate) ready_at_step: u32,
}

impl Group {
    pub(crate) fn new(partitions: u16) -> Self {
        Self { owners: vec![None; usize::from(partitions)], waiting: Vec::new() }
    }

    pub(crate) fn owner(&self, partition: Partition) -> Option<usize> {
        self.owners[usize::from(partition.0)]
    }

    /// Returns the partitions that a process owns, or waits for.
    pub(crate) fn owned_by(&self, process: usize) -> Vec<Partition> {
        let owned = (0..).zip(&self.owners).filter(|(_, owner)| **owner == Some(process));
        owned.map(|(partition, _)| Partition(partition)).collect()
    }
}

impl World {
    /// Makes a process the owner of a partition. If `waits_for_release`, the process gets the partition only when the
    /// former owner has ended its task.
    pub(crate) fn give(&mut self, group: usize, partition: Partition, to: usize, waits_for_release: bool) {
        let index = usize::from(partition.0);
        let former = self.groups[group].owners[index].replace(to);
        if former == Some(to) {
            return;
        }
        if self.groups[group].waiting.iter().any(|waiting| waiting.partition == partition) {
            // The former target has not got the partition yet.
            return;
        }
        if let Some(former) = former.filter(|former| !self.processes[*former].is_dead) {
            let had_it = self.processes[former].held.remove(&partition);
            if had_it {
                self.send_notice(former, Assignment::Revoked(vec![partition]));
            }
            if had_it && waits_for_release {
                self.groups[group].waiting.push(WaitingMove { partition, former });
                return;
            }
        }
        self.assign(partition, to);
    }

    fn assign(&mut self, partition: Partition, to: usize) {
        self.processes[to].held.insert(partition);
        self.send_notice(to, Assignment::Assigned(vec![partition]));
    }

    fn send_notice(&mut self, process: usize, assignment: Assignment) {
        let is_late = self.has_late_notices && self.rng.random_bool(0.5);
        let delay = if is_late { self.rng.random_range(0..MAX_NOTICE_DELAY) } else { 0 };
        self.trace_line(|| format!("process {process} will receive {assignment:?}"));
        self.processes[process].notices.push_back(Notice { assignment, ready_at_step: self.step + delay });
        self.has_begun.notify_one();
    }

    /// Ends each wait for a process: for one partition that it has released, or for all because its session has ended.
    pub(crate) fn stop_waiting_for(&mut self, process: usize, partition: Option<Partition>) {
        let ProcessKind::Consumer(group) = self.processes[process].kind else { return };
        let is_over = |waiting: &WaitingMove| {
            waiting.former == process && partition.is_none_or(|released| released == waiting.partition)
        };
        let (over, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.groups[group].waiting).into_iter().partition(is_over);
        self.groups[group].waiting = waiting;
        for WaitingMove { partition, .. } in over {
            if let Some(owner) = self.groups[group].owner(partition) {
                self.assign(partition, owner);
            }
        }
    }

    /// A process receives its next notice.
    pub(crate) fn receive_notice(&mut self, process: usize) -> Assignment {
        let notice = self.processes[process].notices.pop_front().expect("the process has a notice");
        self.trace_line(|| format!("  process {process}: receives {:?}", notice.assignment));
        match &notice.assignment {
            Assignment::Assigned(partitions) => {
                for partition in partitions {
                    self.processes[process].reader(*partition).is_assigned = true;
                }
            }
            Assignment::Revoked(partitions) => {
                for partition in partitions {
                    let reader = self.processes[process].reader(*partition);
                    (reader.is_assigned, reader.is_revoked) = (false, true);
                }
            }
        }
        notice.assignment
    }

    /// The task of a partition has ended.
    pub(crate) fn release(&mut self, process: usize, partition: Partition) {
        self.trace_line(|| format!("  process {process}: has ended the task of {partition}"));
        self.processes[process].reader(partition).end_task();
        self.released.push((process, partition));
        self.stop_waiting_for(process, Some(partition));
    }

    /// Marks the tasks that have received the notice that they must stop.
    pub(crate) fn mark_stopping_tasks(&mut self) {
        for process in &mut self.processes {
            for reader in process.readers.values_mut() {
                reader.is_stopping |= reader.is_revoked;
            }
        }
    }

    /// Returns the partitions that the process has, as far as it has received its notices.
    pub(crate) fn assigned(&self, process: usize) -> BTreeSet<Partition> {
        let readers = &self.processes[process].readers;
        readers.iter().filter(|(_, reader)| reader.is_assigned).map(|(partition, _)| *partition).collect()
    }
}
