//! One history: when each call takes effect, and what happens in between. Everything is drawn from one seed.
//!
//! A history has a runtime of its own with a paused clock: the clock moves only while all tasks wait. So the tasks run
//! one after another, in the same order each time, and hours of simulated time take no time.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::{
    runtime::Builder,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use votes::Partition;

use crate::{
    check, ending,
    group::Group,
    log::VoteGenerator,
    members::Member,
    process::Process,
    profile::{Event, Plan, Profile},
    world::{ProcessKind, SharedWorld, World},
};

/// The lengths of a wait during which no call is executed. They are longer than a back-off, than the interval between
/// two checks of an idle partition, and than the time after which a lost fetch is repeated.
const WAITS: [Duration; 4] =
    [Duration::from_millis(120), Duration::from_millis(1_100), Duration::from_secs(6), Duration::from_secs(12)];

/// The number of steps, and the longest simulated time, between two checks that no partition halts. A halted partition is
/// halted for 10 s.
const HALT_CHECK_STEPS: u32 = 16;

const MAX_UNCHECKED_TIME: Duration = Duration::from_secs(1);

/// The result of a history.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The first violation, at any time or at the end.
    pub(crate) violation: Option<String>,
    /// The violation at the end.
    pub(crate) end_violation: Option<String>,
    pub(crate) event_counts: BTreeMap<&'static str, u64>,
    pub(crate) trace: String,
}

/// Runs a history.
pub(crate) fn run(plan: Plan) -> Outcome {
    run_simulated(async move {
        let mut history = History::new(plan);
        history.start_first_members();
        history.run_with_faults().await;
        ending::finish_without_faults(history).await
    })
}

/// Runs a future on a runtime of its own with a paused clock.
pub(crate) fn run_simulated<F: Future>(future: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without drivers of the system").block_on(future)
}

pub(crate) struct History {
    pub(crate) plan: Plan,
    pub(crate) profile: Profile,
    pub(crate) rng: SmallRng,
    pub(crate) world: SharedWorld,
    pub(crate) generator: VoteGenerator,
    pub(crate) members: Vec<Member>,
    pub(crate) auditors: Vec<JoinHandle<()>>,
    /// Whether all members shut down, so that no member replaces them.
    pub(crate) is_ending: bool,
}

impl History {
    fn new(plan: Plan) -> Self {
        let mut rng = SmallRng::seed_from_u64(plan.seed);
        let profile = Profile::draw(&mut rng, plan);
        let mut world = World::new(profile.partitions, SmallRng::seed_from_u64(rng.random()));
        world.faults = profile.faults;
        world.mutant = plan.mutant;
        world.max_batch = profile.max_batch;
        world.age = profile.age;
        if plan.is_long {
            world.max_purged = 500;
        }
        world.groups = (0..profile.groups).map(|_| Group::new(profile.partitions)).collect();
        world.trace = plan.is_traced.then(String::new);
        let generator = VoteGenerator::new(profile.partitions);
        let world = SharedWorld::new(world);
        let mut history =
            Self { plan, profile, rng, world, generator, members: Vec::new(), auditors: Vec::new(), is_ending: false };
        for partition in history.partitions() {
            for _ in 0..history.profile.first_votes {
                history.append(partition);
            }
        }
        history
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.profile.partitions).map(Partition)
    }

    pub(crate) fn draw_partition(&mut self) -> Partition {
        Partition(self.rng.random_range(0..self.profile.partitions))
    }

    /// Runs the part of the history with faults.
    async fn run_with_faults(&mut self) {
        for _ in 0..self.profile.steps {
            let is_event = self.rng.random_bool(self.profile.event_probability);
            if is_event || !self.execute_random_operations().await {
                let index = self.rng.random_range(0..self.profile.event_pool.len());
                self.apply(self.profile.event_pool[index]).await;
            }
        }
    }

    /// Executes a random operation, or several operations of one task in a row. Returns `false` if no operation can be
    /// executed.
    pub(crate) async fn execute_random_operations(&mut self) -> bool {
        let executable = self.world.lock().executable();
        if executable.is_empty() {
            return false;
        }
        let mut index = executable[self.rng.random_range(0..executable.len())];
        let mut remaining = self.rng.random_range(1..=self.profile.max_consecutive_operations);
        let task = {
            let world = self.world.lock();
            let operation = &world.operations[index];
            (operation.process, operation.partition)
        };
        loop {
            let is_reply_immediate = self.rng.random_bool(0.5);
            self.world.lock().execute(index, is_reply_immediate);
            self.step(self.profile.step_time).await;
            remaining -= 1;
            if remaining == 0 {
                return true;
            }
            let next = {
                let world = self.world.lock();
                let of_task = |index: &usize| {
                    let operation = &world.operations[*index];
                    (operation.process, operation.partition) == task
                };
                world.executable().into_iter().find(of_task)
            };
            match next {
                Some(next) => index = next,
                None => return true,
            }
        }
    }

    /// Lets all tasks run until all of them wait, and lets simulated time pass.
    pub(crate) async fn step(&mut self, time: Duration) {
        let is_check_due = self.world.lock().step.is_multiple_of(HALT_CHECK_STEPS);
        if is_check_due || time >= MAX_UNCHECKED_TIME {
            self.check_no_partition_halts().await;
        }
        sleep(time).await;
        let released = {
            let mut world = self.world.lock();
            world.step += 1;
            world.mark_stopping_tasks();
            std::mem::take(&mut world.released)
        };
        for (process, partition) in released {
            self.check_health_names_no(process, partition).await;
        }
        self.collect_ended_members();
    }

    /// Waits until a process has begun a call, for at most this time.
    pub(crate) async fn wait_for_call(&mut self, limit: Duration) {
        let has_begun = std::sync::Arc::clone(&self.world.lock().has_begun);
        let _ = timeout(limit, has_begun.notified()).await;
        self.step(Duration::from_millis(1)).await;
    }

    async fn apply(&mut self, event: Event) {
        match event {
            Event::Append => {
                let partition = self.draw_partition();
                for _ in 0..self.rng.random_range(1..=4) {
                    self.append(partition);
                }
            }
            Event::Kill => self.kill().await,
            Event::Pause => self.pause(),
            Event::Resume => self.resume(),
            Event::MovePartition => self.move_partition(),
            Event::Join => self.join(),
            Event::Leave => self.leave().await,
            Event::Wait => {
                let time = WAITS[self.rng.random_range(0..WAITS.len())];
                self.world.lock().trace_line(|| format!("{time:?} pass"));
                self.step(time).await;
            }
            Event::LoseFetch => self.lose_fetch(),
            Event::StallSnapshot => {
                let time = Duration::from_millis(self.rng.random_range(1..4_000));
                let mut world = self.world.lock();
                world.snapshot_stalled_until = Some(Instant::now() + time);
                world.trace_line(|| format!("the ledger's snapshot is stalled for {time:?}"));
            }
            Event::BackUpTallies => {
                let mut world = self.world.lock();
                let backup = world.tallies.clone();
                world.tallies_backups.push(backup);
            }
            Event::RollTalliesBack => self.roll_tallies_back(),
            Event::WipeTallies => self.wipe_tallies(),
            Event::BackUpLedger => {
                let mut world = self.world.lock();
                let backup = world.ledger.clone();
                world.ledger_backups.push(backup);
            }
            Event::RestoreLedger => self.restore_ledger().await,
            Event::ChangeRules => {
                let mut world = self.world.lock();
                world.has_many_votes ^= true;
                world.count_event("changes of rules");
                world.trace_line(|| "the rules change".to_owned());
            }
            Event::TrimLog => {
                let partition = self.draw_partition();
                self.world.lock().trim_due.insert(partition);
            }
            Event::Expire => {
                let partition = self.draw_partition();
                self.world.lock().expiry_due.insert(partition);
            }
            Event::Audit => self.audit(),
        }
    }

    pub(crate) fn append(&mut self, partition: Partition) {
        let Profile { gaps, invalid, duplicates, .. } = self.profile;
        let rng = &mut self.rng;
        // Without a retention by age, the times of votes mean nothing.
        let clock = self.profile.age.map(|_| self.world.lock().now());
        let gap = if rng.random_bool(gaps) { rng.random_range(1..=3) } else { 0 };
        let (event, vote) = if rng.random_bool(invalid) {
            ("invalid records", None)
        } else if rng.random_bool(duplicates) {
            let vote = self.generator.duplicate(partition, rng, clock);
            if self.world.lock().may_be_duplicate(partition, &vote) {
                ("duplicates", Some(vote))
            } else {
                ("new ballots", Some(self.generator.vote(partition, rng, clock)))
            }
        } else {
            ("new ballots", Some(self.generator.vote(partition, rng, clock)))
        };
        let mut world = self.world.lock();
        world.count_event(event);
        if gap > 0 {
            world.count_event("gaps in the log");
        }
        let key = vote.as_ref().map(|vote| (vote.key.clone(), vote.vote_id, vote.name.clone()));
        let offset = world.log[usize::from(partition.0)].append(gap, vote);
        world.trace_line(|| match key {
            Some((key, id, name)) => format!("log {partition} at {offset}: {}, id {id}, for {name}", key.as_str()),
            None => format!("log {partition} at {offset}: invalid record"),
        });
    }

    /// Starts the production audit while consumers count. Skips the audit after a restore, because the ledger may lack
    /// votes that were counted.
    fn audit(&mut self) {
        if self.world.lock().is_restored {
            return;
        }
        let process = Process::new(&self.world, ProcessKind::Other);
        let (id, world) = (process.id, self.world.clone());
        let auditor = async move {
            let report = check::run_audit(process).await;
            let mut world = world.lock();
            if let Ok(report) = report
                && !world.is_restored
            {
                world.count_event("audits while counting");
                world.trace_line(|| format!("auditor {id}: {report:?}"));
                if !report.ok {
                    world.report_violation(|| format!("an audit while counting reports {:?}", report.differences));
                }
            }
        };
        self.auditors.push(tokio::spawn(auditor));
    }
}
