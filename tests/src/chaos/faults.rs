//! This module draws a plan of faults from a seed, and injects the faults.
//!
//! The same seed gives the same plan. Two runs of a plan have different histories: how far a process is with a batch at
//! the time of a fault depends on the machine.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    clients::random_millis,
    processes::{Fleet, ProgramKind, signal},
    snapshot,
};
use crate::stack::Stack;

/// The session timeout of a consumer. A consumer that sends no heartbeat for this time loses its partitions, and other
/// consumers count them some seconds later. A consumer is paused for longer than this, because after a shorter pause no
/// other consumer would have counted its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The longest time that a fault waits until counting has progressed on all partitions.
const COUNTING_TIMEOUT: Duration = Duration::from_secs(20);

/// The interval at which the positions are read.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long the server of the ledger is paused before a consumer is paused.
const HOLD_TIME: Duration = Duration::from_millis(300);

/// A fault. A number selects one of the processes that run at the time of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a producer.
    KillProducer(usize),
    /// SIGTERM of a producer, as in a rolling update.
    ReplaceProducer(usize),
    /// SIGKILL of a consumer.
    KillConsumer(usize),
    /// SIGSTOP of a consumer for longer than its session timeout, then SIGCONT. The consumer continues in the middle of
    /// a batch, when other consumers have its partitions.
    PauseConsumer(usize, Duration),
    /// The start of another consumer.
    AddConsumer,
    /// SIGTERM of a consumer, which is not started again.
    RemoveConsumer(usize),
    /// SIGKILL of a server, which is started again after the duration.
    KillServer(Server, u16, Duration),
    /// SIGSTOP of a server for the duration, then SIGCONT. The connections of the server stay open, and the server
    /// responds late or never.
    PauseServer(Server, u16, Duration),
    /// The command FLUSHALL.
    FlushRedis,
    /// The append-only files of Redis are copied, and replaced by the copy after the duration.
    RollBackRedis(Duration),
    /// The ledger is copied, and replaced by the copy after the duration, with the consumers stopped.
    RestoreLedger(Duration),
}

/// The servers of the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Kafka,
    Redis,
    Mongo,
}

impl Fault {
    /// Returns the kind of the fault, for the statistics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::KillProducer(_) => "kill a producer",
            Self::ReplaceProducer(_) => "replace a producer",
            Self::KillConsumer(_) => "kill a consumer",
            Self::PauseConsumer(..) => "pause a consumer",
            Self::AddConsumer => "add a consumer",
            Self::RemoveConsumer(_) => "remove a consumer",
            Self::KillServer(Server::Kafka, ..) => "kill Kafka",
            Self::KillServer(Server::Redis, ..) => "kill Redis",
            Self::KillServer(Server::Mongo, ..) => "kill MongoDB",
            Self::PauseServer(Server::Kafka, ..) => "pause Kafka",
            Self::PauseServer(Server::Redis, ..) => "pause Redis",
            Self::PauseServer(Server::Mongo, ..) => "pause MongoDB",
            Self::FlushRedis => "flush Redis",
            Self::RollBackRedis(_) => "roll Redis back",
            Self::RestoreLedger(_) => "restore the ledger",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::PauseConsumer(_, time) | Self::KillServer(_, _, time) | Self::PauseServer(_, _, time) => {
                write!(f, " for {time:?}")
            }
            Self::RollBackRedis(age) | Self::RestoreLedger(age) => write!(f, " to its state {age:?} ago"),
            _ => Ok(()),
        }
    }
}

/// A fault and its time since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    pub at: Duration,
    pub fault: Fault,
}

/// Draws a plan whose last fault starts before `length`. The faults are drawn from a bag without replacement, so a plan
/// that empties a bag has every kind of fault.
pub fn plan(seed: u64, length: Duration) -> Vec<PlannedFault> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut plan, mut bag, mut at) = (Vec::new(), Vec::new(), Duration::from_secs(5));
    while at < length {
        if bag.is_empty() {
            bag = full_bag(&mut random);
        }
        plan.extend(bag.pop().map(|fault| PlannedFault { at, fault }));
        at += random_millis(&mut random, 300..4_900);
    }
    plan
}

/// Returns a shuffled bag with every kind of fault, some of them several times.
fn full_bag(random: &mut StdRng) -> Vec<Fault> {
    let mut bag = Vec::new();
    let mut add = |times: usize, random: &mut StdRng, draw: &dyn Fn(&mut StdRng) -> Fault| {
        bag.extend((0..times).map(|_| draw(random)));
    };
    add(3, random, &|random| Fault::KillProducer(random.random_range(0..100)));
    add(1, random, &|random| Fault::ReplaceProducer(random.random_range(0..100)));
    add(5, random, &|random| Fault::KillConsumer(random.random_range(0..100)));
    add(3, random, &|random| {
        Fault::PauseConsumer(random.random_range(0..100), SESSION_TIMEOUT + random_millis(random, 3_000..8_000))
    });
    add(2, random, &|_| Fault::AddConsumer);
    add(2, random, &|random| Fault::RemoveConsumer(random.random_range(0..100)));
    for (server, kills, pauses) in [(Server::Redis, 2, 1), (Server::Mongo, 2, 1), (Server::Kafka, 1, 1)] {
        add(kills, random, &move |random| {
            Fault::KillServer(server, random.random_range(0..100), random_millis(random, 0..4_000))
        });
        add(pauses, random, &move |random| {
            Fault::PauseServer(server, random.random_range(0..100), random_millis(random, 500..6_000))
        });
    }
    add(4, random, &|_| Fault::FlushRedis);
    add(2, random, &|random| Fault::RollBackRedis(random_millis(random, 1_000..15_000)));
    add(1, random, &|random| Fault::RestoreLedger(random_millis(random, 3_000..15_000)));
    bag.shuffle(random);
    bag
}

/// Injects faults. Faults of the same server run one after the other; other faults may overlap.
pub struct FaultInjector<'a> {
    stack: &'a Stack,
    fleet: &'a Fleet,
    started_at: Instant,
    server_locks: BTreeMap<Server, Mutex<()>>,
    /// Faults that add, remove or pause a consumer hold this lock shared. The fault that needs all consumers stopped
    /// holds it exclusively. A fault that kills a consumer holds nothing: it selects no consumer that is being stopped,
    /// and a killed consumer is not started again while all consumers must be stopped.
    consumer_lock: RwLock<()>,
    /// The number of injected faults by kind.
    injected: Mutex<BTreeMap<&'static str, usize>>,
}

impl<'a> FaultInjector<'a> {
    pub fn new(stack: &'a Stack, fleet: &'a Fleet, started_at: Instant) -> Self {
        let server_locks = [Server::Kafka, Server::Redis, Server::Mongo].map(|server| (server, Mutex::new(()))).into();
        Self { stack, fleet, started_at, server_locks, consumer_lock: RwLock::default(), injected: Mutex::default() }
    }

    /// Injects the faults of a plan, and waits until the last fault has ended and every server runs. Returns the number
    /// of injected faults by kind.
    pub fn run(&self, plan: &[PlannedFault]) -> BTreeMap<&'static str, usize> {
        thread::scope(|scope| {
            for &PlannedFault { at, fault } in plan {
                thread::sleep(at.saturating_sub(self.started_at.elapsed()));
                scope.spawn(move || {
                    if self.inject(fault) {
                        *self.injected.lock().unwrap().entry(fault.kind()).or_default() += 1;
                    }
                });
            }
        });
        self.injected.lock().unwrap().clone()
    }

    fn log(&self, text: impl fmt::Display) {
        println!("{:7.1} s  {text}", self.started_at.elapsed().as_secs_f64());
    }

    /// Injects a fault, and waits until the fault has ended. Returns `false` if no process was available for the fault,
    /// or if a server did not respond.
    fn inject(&self, fault: Fault) -> bool {
        match fault {
            Fault::KillProducer(number) => self.end_process(fault, ProgramKind::is_producer, number, Fleet::kill),
            Fault::ReplaceProducer(number) => {
                self.end_process(fault, ProgramKind::is_producer, number, Fleet::terminate)
            }
            Fault::KillConsumer(number) => {
                self.end_process(fault, |kind| kind == ProgramKind::Consumer, number, Fleet::kill)
            }
            Fault::PauseConsumer(number, pause) => self.pause_consumer(fault, number, pause),
            Fault::AddConsumer => {
                let _shared = self.share_consumers();
                let added = self.fleet.add_consumer();
                self.log_process(fault, added);
                added.is_some()
            }
            Fault::RemoveConsumer(number) => {
                let _shared = self.share_consumers();
                let removed = self.fleet.remove_consumer(number);
                self.log_process(fault, removed);
                removed.is_some()
            }
            Fault::KillServer(server, number, down) => {
                let _exclusive = self.lock_server(server);
                let name = self.server_name(server, number);
                self.log(format_args!("{fault}: {name}"));
                self.stack.kill(&name);
                thread::sleep(down);
                self.stack.start(&name);
                self.log(format_args!("{name} runs again"));
                true
            }
            Fault::PauseServer(server, number, pause) => {
                let _exclusive = self.lock_server(server);
                let Some(pid) = self.stack.pid(&self.server_name(server, number)) else { return false };
                self.log(fault);
                signal(pid, "STOP");
                thread::sleep(pause);
                signal(pid, "CONT");
                true
            }
            Fault::FlushRedis => {
                let _exclusive = self.lock_server(Server::Redis);
                self.wait_until_counting();
                let flushed = snapshot::connect_to_tallies(&self.stack.urls)
                    .and_then(|mut redis| redis::cmd("FLUSHALL").query::<()>(&mut redis));
                self.log(format_args!("{fault}: {flushed:?}"));
                flushed.is_ok()
            }
            Fault::RollBackRedis(age) => self.roll_back_redis(fault, age),
            Fault::RestoreLedger(age) => self.restore_ledger(fault, age),
        }
    }

    /// Waits until counting has progressed on every partition, or until [`COUNTING_TIMEOUT`]. A fault then tests more:
    /// a counter at work relies on the position in its memory. A counter that recovers from another fault reads its
    /// position again in any case.
    fn wait_until_counting(&self) {
        let begun = Instant::now();
        let mut first = BTreeMap::new();
        while begun.elapsed() < COUNTING_TIMEOUT {
            if let Ok(positions) = snapshot::read_positions(&self.stack.urls) {
                if first.is_empty() {
                    first = positions;
                } else if first.iter().all(|(partition, first)| positions.get(partition).is_some_and(|at| at > first)) {
                    return;
                }
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn pause_consumer(&self, fault: Fault, number: usize, pause: Duration) -> bool {
        let _shared = self.share_consumers();
        let Some(number) = self.fleet.choose(|kind| kind == ProgramKind::Consumer, number) else {
            self.log_process(fault, None);
            return false;
        };
        self.wait_until_counting();
        self.log_process(fault, Some(number));
        let paused_ledger = self.pause_ledger();
        let paused = self.fleet.pause(number);
        drop(paused_ledger);
        thread::sleep(pause);
        self.fleet.resume(number, paused);
        true
    }

    /// Pauses the server of the ledger until the guard is dropped. The current batches then stay in flight: the server
    /// has the request, and the consumer waits for the response. Returns `None` if another fault uses the server, or if
    /// the server does not run.
    fn pause_ledger(&self) -> Option<PausedLedger<'_>> {
        let exclusive = self.server_locks[&Server::Mongo].try_lock().ok()?;
        let pid = self.stack.pid("mongo")?;
        signal(pid, "STOP");
        let paused = PausedLedger { pid, _exclusive: exclusive };
        // Votes arrive during this time, so all partitions can have a batch in flight.
        thread::sleep(HOLD_TIME);
        Some(paused)
    }

    fn lock_server(&self, server: Server) -> MutexGuard<'_, ()> {
        self.server_locks[&server].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks [`consumer_lock`](Self::consumer_lock) shared.
    fn share_consumers(&self) -> RwLockReadGuard<'_, ()> {
        self.consumer_lock.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn server_name(&self, server: Server, number: u16) -> String {
        match server {
            Server::Kafka => self.stack.broker(number),
            Server::Redis => "redis".to_owned(),
            Server::Mongo => "mongo".to_owned(),
        }
    }

    fn end_process(
        &self,
        fault: Fault,
        is_kind: impl Fn(ProgramKind) -> bool,
        number: usize,
        end: impl FnOnce(&Fleet, u16),
    ) -> bool {
        let chosen = self.fleet.choose(is_kind, number);
        self.log_process(fault, chosen);
        if let Some(number) = chosen {
            end(self.fleet, number);
        }
        chosen.is_some()
    }

    /// Logs the fault with the name of its process.
    fn log_process(&self, fault: Fault, number: Option<u16>) {
        match number {
            Some(number) => self.log(format_args!("{fault}: {}", self.fleet.name(number))),
            None => self.log(format_args!("{fault}: no process is available")),
        }
    }

    fn roll_back_redis(&self, fault: Fault, age: Duration) -> bool {
        let files = self.stack.data("redis").join("appendonlydir");
        let folder = tempfile::tempdir_in(&self.stack.folder).unwrap();
        let copy = folder.path().join("appendonlydir");
        {
            // The files are copied while the server writes them, as a backup does. When Redis starts, it ignores an
            // incomplete last command. Rewriting is switched off, because it would change the set of files.
            let _exclusive = self.lock_server(Server::Redis);
            let switched_off = snapshot::connect_to_tallies(&self.stack.urls).and_then(|mut redis| {
                redis::cmd("CONFIG").arg("SET").arg("auto-aof-rewrite-percentage").arg(0).query::<()>(&mut redis)
            });
            if switched_off.is_err() {
                return false;
            }
            copy_folder(&files, &copy);
            self.log("the files of Redis are copied");
        }
        thread::sleep(age);
        let _exclusive = self.lock_server(Server::Redis);
        self.stack.kill("redis");
        fs::remove_dir_all(&files).unwrap();
        fs::rename(&copy, &files).unwrap();
        self.stack.start("redis");
        self.log(fault);
        true
    }

    fn restore_ledger(&self, fault: Fault, age: Duration) -> bool {
        let files = self.stack.data("mongo");
        let folder = tempfile::tempdir_in(&self.stack.folder).unwrap();
        let copy = folder.path().join("mongo");
        {
            // The server is killed first, because its files must not change during the copy.
            let _exclusive = self.lock_server(Server::Mongo);
            self.stack.kill("mongo");
            copy_folder(&files, &copy);
            self.stack.start("mongo");
            self.log("the ledger is copied");
        }
        thread::sleep(age);
        let _exclusive = self.lock_server(Server::Mongo);
        let _all_stopped = self.consumer_lock.write().unwrap_or_else(PoisonError::into_inner);
        self.fleet.without_consumers(|| {
            self.stack.kill("mongo");
            fs::remove_dir_all(&files).unwrap();
            fs::rename(&copy, &files).unwrap();
            self.stack.start("mongo");
            self.log(fault);
        });
        true
    }
}

/// A paused server of the ledger. The server continues when this is dropped.
struct PausedLedger<'a> {
    pid: u32,
    _exclusive: MutexGuard<'a, ()>,
}

impl Drop for PausedLedger<'_> {
    fn drop(&mut self) {
        signal(self.pid, "CONT");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(status.success(), "{} can't be copied", from.display());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_determines_the_plan() {
        let length = Duration::from_mins(10);
        assert_eq!(plan(7, length), plan(7, length));
        assert_ne!(plan(7, length), plan(8, length));
    }

    #[test]
    fn two_minutes_have_every_kind_of_fault() {
        for seed in 0..50 {
            let kinds: BTreeSet<&str> =
                plan(seed, Duration::from_secs(110)).iter().map(|planned| planned.fault.kind()).collect();
            assert_eq!(kinds.len(), 15, "seed {seed} lacks some of {kinds:?}");
        }
    }
}
