//! The consumers of a history: each one is the production service, with simulated ports.

use std::{sync::Arc, time::Duration};

use consumer::{Dependencies, RetentionPolicy};
use rand::RngExt as _;
use service::{CancellationToken, Health};
use tokio::task::JoinHandle;
use votes::{Counter, LogReader, Partition, PartitionHalt, Retention, StoreError};

use crate::{
    history::History,
    ledger::LEDGER_RETENTION,
    process::Process,
    profile::Event,
    reader::Reader,
    world::{ProcessKind, ProcessState, World},
};

/// The maximum number of members of a group that are not paused.
const MAX_MEMBERS: usize = 3;

/// The maximum number of paused members.
const MAX_PAUSED: usize = 4;

/// The message of each reason for which a partition halts has one of these parts.
const HALTS: [&str; 2] = ["this is not the log that was counted", "were deleted before they were counted"];

fn is_halt(error: &str) -> bool {
    HALTS.iter().any(|part| error.contains(part))
}

/// One consumer.
pub(crate) struct Member {
    pub(crate) process: usize,
    group: usize,
    pub(crate) health: Health,
    shutdown: CancellationToken,
    service: JoinHandle<Result<(), StoreError>>,
    pub(crate) is_paused: bool,
    /// Whether the member has to shut down.
    is_leaving: bool,
}

impl Member {
    fn is_active(&self) -> bool {
        !self.is_paused && !self.is_leaving
    }
}

impl History {
    /// Starts the members of each group, and assigns all partitions.
    pub(crate) fn start_first_members(&mut self) {
        for group in 0..self.profile.groups {
            let count = self.rng.random_range(1..=self.profile.partitions);
            let members: Vec<usize> = (0..count).map(|_| self.start_member(group)).collect();
            for partition in self.partitions() {
                let to = members[usize::from(partition.0) % members.len()];
                self.world.lock().give(group, partition, to, false);
            }
        }
    }

    /// Starts a consumer without partitions. Returns the number of its process.
    fn start_member(&mut self, group: usize) -> usize {
        let process = Process::new(&self.world, ProcessKind::Consumer(group));
        let id = process.id;
        self.world.lock().trace_line(|| format!("process {id} starts in group {group}"));
        let retention = |event, bytes| self.profile.has(event).then_some(Retention::Bytes(bytes));
        let retention = RetentionPolicy::new(
            retention(Event::TrimLog, LEDGER_RETENTION),
            self.profile.age.map(Retention::Age).or_else(|| retention(Event::Expire, LEDGER_RETENTION)),
            &process.ledger_retention(),
            &process.tallies(),
        );
        let (world, error) = (self.world.clone(), Duration::from_millis(self.rng.random_range(0..=2_000)));
        // The clock of a consumer is wrong by at most a second.
        let retention = retention.with_clock(move || world.lock().now().after(error).before(Duration::from_secs(1)));
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let dependencies = Dependencies {
            counter: Counter::new(process.ledger(), process.tallies()),
            retention,
            health: health.clone(),
            until_assigned: None,
        };
        let reader: Arc<dyn LogReader> = Arc::new(process);
        let service = tokio::spawn(consumer::run(reader, dependencies, shutdown.clone()));
        let member = Member { process: id, group, health, shutdown, service, is_paused: false, is_leaving: false };
        self.members.push(member);
        id
    }

    /// Returns the index of a random member for which `is_eligible` is true.
    fn pick_member(&mut self, is_eligible: impl Fn(&Member) -> bool) -> Option<usize> {
        let eligible: Vec<usize> = (0..self.members.len()).filter(|index| is_eligible(&self.members[*index])).collect();
        (!eligible.is_empty()).then(|| eligible[self.rng.random_range(0..eligible.len())])
    }

    fn count_active(&self, group: usize) -> usize {
        self.members.iter().filter(|member| member.group == group && member.is_active()).count()
    }

    /// Gives the partitions of a process that has left, was killed or is paused to other members of its group.
    fn replace(&mut self, group: usize, process: usize) {
        self.world.lock().stop_waiting_for(process, None);
        let partitions = self.world.lock().groups[group].owned_by(process);
        for partition in partitions {
            let is_new = self.count_active(group) < MAX_MEMBERS && self.rng.random_bool(0.5);
            let is_other = |member: &Member| member.group == group && member.is_active() && member.process != process;
            let other = if is_new { None } else { self.pick_member(is_other) };
            let to = match other {
                Some(index) => self.members[index].process,
                None => self.start_member(group),
            };
            self.world.lock().give(group, partition, to, false);
        }
    }

    pub(crate) async fn kill(&mut self) {
        let Some(index) = self.pick_member(|_| true) else { return };
        let Member { process, group, .. } = self.members[index];
        let probability = if self.rng.random_bool(0.5) { 0.6 } else { 0.0 };
        {
            let mut world = self.world.lock();
            let in_flight = world.send_requests(process, probability);
            world.count_event("kills");
            world.trace_line(|| format!("process {process} is killed, with {in_flight} requests in flight"));
        }
        self.end_process(index).await;
        self.replace(group, process);
    }

    /// Ends a process without any notice.
    async fn end_process(&mut self, index: usize) {
        let member = self.members.swap_remove(index);
        {
            let mut world = self.world.lock();
            world.processes[member.process].is_dead = true;
            world.stop_waiting_for(member.process, None);
        }
        member.service.abort();
        self.step(self.profile.step_time).await;
        let dropped = self.world.lock().drop_operations(member.process);
        drop(dropped);
    }

    /// Pauses a member for longer than its session: its partitions are given to other members, and it does not notice.
    pub(crate) fn pause(&mut self) {
        if self.members.iter().filter(|member| member.is_paused).count() >= MAX_PAUSED {
            return;
        }
        let Some(index) = self.pick_member(Member::is_active) else { return };
        self.members[index].is_paused = true;
        let Member { process, group, .. } = self.members[index];
        {
            let mut world = self.world.lock();
            world.processes[process].is_paused = true;
            let in_flight = world.send_requests(process, 0.3);
            world.count_event("pauses");
            world.trace_line(|| format!("process {process} is paused, with {in_flight} requests in flight"));
        }
        self.replace(group, process);
    }

    pub(crate) fn resume(&mut self) {
        let Some(index) = self.pick_member(|member| member.is_paused) else { return };
        self.resume_member(index);
    }

    fn resume_member(&mut self, index: usize) {
        self.members[index].is_paused = false;
        let process = self.members[index].process;
        let mut world = self.world.lock();
        world.processes[process].is_paused = false;
        world.count_event("resumed zombies");
        world.trace_line(|| format!("process {process} resumes as a zombie"));
    }

    pub(crate) fn resume_all(&mut self) {
        for index in 0..self.members.len() {
            if self.members[index].is_paused {
                self.resume_member(index);
            }
        }
    }

    /// Moves a partition to another member of the group.
    pub(crate) fn move_partition(&mut self) {
        let (group, partition) = (self.rng.random_range(0..self.profile.groups), self.draw_partition());
        let owner = self.world.lock().groups[group].owner(partition);
        let is_other = |member: &Member| member.group == group && member.is_active() && Some(member.process) != owner;
        let to = match self.pick_member(is_other) {
            Some(index) => self.members[index].process,
            None if self.count_active(group) < MAX_MEMBERS => self.start_member(group),
            None => return,
        };
        self.rebalance(group, partition, to);
    }

    fn rebalance(&mut self, group: usize, partition: Partition, to: usize) {
        let waits_for_release = self.rng.random_bool(0.5);
        let mut world = self.world.lock();
        world.count_event(if waits_for_release { "moves that wait" } else { "moves that do not wait" });
        world.trace_line(|| {
            let wait = if waits_for_release { " after its release" } else { "" };
            format!("partition {partition} moves to process {to}{wait}")
        });
        world.give(group, partition, to, waits_for_release);
    }

    /// Starts a member, which gets one partition.
    pub(crate) fn join(&mut self) {
        let (group, partition) = (self.rng.random_range(0..self.profile.groups), self.draw_partition());
        if self.count_active(group) < MAX_MEMBERS {
            let to = self.start_member(group);
            self.rebalance(group, partition, to);
        }
    }

    /// Shuts a member down. It finishes its batches, and then leaves the group.
    pub(crate) async fn leave(&mut self) {
        let Some(index) = self.pick_member(Member::is_active) else { return };
        self.shut_down(index).await;
    }

    async fn shut_down(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.is_leaving = true;
        member.shutdown.cancel();
        let process = member.process;
        {
            let mut world = self.world.lock();
            world.count_event("shutdowns");
            world.trace_line(|| format!("process {process} shuts down"));
        }
        self.step(self.profile.step_time).await;
        self.world.lock().processes[process].is_stopping = true;
    }

    pub(crate) async fn shut_down_all(&mut self) {
        self.is_ending = true;
        let processes: Vec<usize> =
            self.members.iter().filter(|member| member.is_active()).map(|member| member.process).collect();
        for process in processes {
            if let Some(index) = self.members.iter().position(|member| member.process == process) {
                self.shut_down(index).await;
            }
        }
    }

    /// Removes the members that have shut down, and checks that no other one has ended. A member that shuts down and
    /// waits for no call must have ended.
    pub(crate) fn collect_ended_members(&mut self) {
        let mut index = 0;
        while index < self.members.len() {
            let Member { process, group, is_leaving, .. } = self.members[index];
            let has_ended = self.members[index].service.is_finished();
            if !has_ended {
                let mut world = self.world.lock();
                if world.processes[process].is_stopping && !world.has_operations(process) {
                    world.report_violation(|| format!("process {process} has nothing to wait for, and does not end"));
                }
                index += 1;
                continue;
            }
            self.members.swap_remove(index);
            {
                let mut world = self.world.lock();
                world.processes[process].is_dead = true;
                world.trace_line(|| format!("process {process} has ended"));
                if !is_leaving {
                    world.report_violation(|| format!("process {process} ended without a shutdown"));
                }
            }
            if !self.is_ending {
                self.replace(group, process);
            }
        }
    }

    /// Stops all processes at once, except the members that may stay. None of their requests is in flight after this.
    pub(crate) async fn stop_all(&mut self, may_stay: impl Fn(&Member) -> bool) {
        for auditor in std::mem::take(&mut self.auditors) {
            auditor.abort();
        }
        self.step(self.profile.step_time).await;
        while let Some(index) = self.members.iter().position(|member| !may_stay(member)) {
            self.end_process(index).await;
        }
        let World { operations, processes, .. } = &mut *self.world.lock();
        let is_of_member = |process: &ProcessState| !process.is_dead && process.kind != ProcessKind::Other;
        operations.retain(|operation| is_of_member(&processes[operation.process]));
    }

    /// Gives each partition that has no live owner to a member of its group.
    pub(crate) fn replace_dead(&mut self) {
        for group in 0..self.profile.groups {
            let owners: Vec<usize> =
                self.partitions().filter_map(|partition| self.world.lock().groups[group].owner(partition)).collect();
            for owner in owners {
                if self.world.lock().processes[owner].is_dead {
                    self.replace(group, owner);
                }
            }
        }
    }

    /// The log loses the fetch of a reader, so it returns no record until the next seek.
    pub(crate) fn lose_fetch(&mut self) {
        let partition = self.draw_partition();
        let Some(index) = self.pick_member(Member::is_active) else { return };
        let process = self.members[index].process;
        let mut world = self.world.lock();
        let reader = world.processes[process].reader(partition);
        if reader.is_assigned {
            reader.is_stalled = true;
            world.count_event("lost fetches");
            world.trace_line(|| format!("process {process} loses its fetch of {partition}"));
        }
    }

    /// Returns the problem that a task has not reached the end of its log.
    pub(crate) fn unfinished_task(&self) -> Option<String> {
        let world = self.world.lock();
        self.members.iter().find_map(|Member { process, .. }| {
            let mut readers = world.processes[*process].readers.iter().filter(|(_, reader)| reader.is_assigned);
            let is_unfinished = |(partition, reader): &(&Partition, &Reader)| {
                reader.must_reconcile || world.log(**partition).has_records_from(reader.read_offset)
            };
            let (partition, _) = readers.find(is_unfinished)?;
            Some(format!("process {process} does not count partition {partition} to its end"))
        })
    }

    /// Checks that the health of a process does not name a partition whose task has ended.
    pub(crate) async fn check_health_names_no(&mut self, process: usize, partition: Partition) {
        let is_held = self.world.lock().assigned(process).contains(&partition);
        let Some(member) = self.members.iter().find(|member| member.process == process) else { return };
        if is_held {
            return;
        }
        let report = member.health.report().await;
        let name = format!("partition {partition}");
        let error = report.checks.iter().filter_map(|check| check.error.as_ref()).find(|error| error.contains(&name));
        if let Some(error) = error {
            self.world.lock().report_violation(|| {
                format!("the health of process {process} names {partition}, which it does not count: {error}")
            });
        }
    }

    /// Checks that no partition is halted. No history loses its log, so no partition may halt.
    pub(crate) async fn check_no_partition_halts(&mut self) {
        for member in &self.members {
            let report = member.health.report().await;
            let halt = report.checks.into_iter().filter_map(|check| check.error).find(|error| is_halt(error));
            if let Some(halt) = halt {
                self.world.lock().report_violation(|| format!("process {} halts: {halt}", member.process));
            }
        }
    }

    /// Returns the problem of a member's health, if there is one.
    pub(crate) async fn health_problem(&self) -> Option<String> {
        for member in &self.members {
            let report = member.health.report().await;
            let failed = report.checks.iter().find_map(|check| check.error.as_ref());
            if let Some(error) = failed {
                return Some(format!("the health of process {} is not well: {error}", member.process));
            }
            if report.checks.is_empty() {
                return Some(format!("process {} has no check", member.process));
            }
        }
        None
    }
}

#[test]
fn the_message_of_each_halt_is_recognised() {
    let (partition, offset) = (Partition(0), votes::Offset(1));
    let expected = votes::VoteId(uuid::Uuid::from_u128(0));
    let halts = [
        PartitionHalt::Lost { partition, recorded: offset, start: offset },
        PartitionHalt::BeyondEnd { partition, store: "ledger", position: offset, end: offset },
        PartitionHalt::OtherLog { partition, store: "ledger", offset, expected },
    ];
    for halt in halts {
        assert!(is_halt(&halt.to_string()), "{halt}");
    }
}
