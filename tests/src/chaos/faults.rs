//! The faults: a plan drawn from a seed, and their execution.
//!
//! The same seed gives the same plan. What of a batch a process has done when the fault meets it is the machine's affair, so
//! that a second run of a plan is another history.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{
    clients::millis,
    processes::{Fleet, Kind, signal},
    snapshot,
};
use crate::stack::Stack;

/// A consumer that is silent for this long loses its partitions. Until others know and count there, it takes some seconds
/// more: one that wakes sooner meets nobody.
const SESSION: Duration = Duration::from_secs(6);

/// How long a fault waits for all partitions to be counted.
const CALM: Duration = Duration::from_secs(20);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// How long the book holds back its answers before a consumer is paused.
const HOLD: Duration = Duration::from_millis(300);

/// Something bad. Numbers choose among those that run when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a producer.
    KillProducer(usize),
    /// SIGTERM of a producer, as in a rolling update.
    ReplaceProducer(usize),
    /// SIGKILL of a consumer.
    KillConsumer(usize),
    /// SIGSTOP of a consumer for longer than its session, then SIGCONT: it wakes in mid-batch, and others have its partitions.
    PauseConsumer(usize, Duration),
    AddConsumer,
    /// SIGTERM of a consumer that is not started again.
    RemoveConsumer(usize),
    /// SIGKILL of a server, started again after a while.
    KillServer(Server, u16, Duration),
    /// SIGSTOP of a server for a while: it holds its connections, and requests are answered late or never.
    PauseServer(Server, u16, Duration),
    /// FLUSHALL.
    FlushRedis,
    /// A copy of Redis' append-only files is taken, and put in their place after a while.
    RollBackRedis(Duration),
    /// A copy of the book is taken, and restored after a while, with the consumers stopped.
    RestoreBook(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    Kafka,
    Redis,
    Mongo,
}

impl Fault {
    /// Its kind, for statistics.
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
            Self::RestoreBook(_) => "restore the book",
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
            Self::RollBackRedis(age) | Self::RestoreBook(age) => write!(f, " by {age:?}"),
            _ => Ok(()),
        }
    }
}

/// A fault and when it happens, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// Draws a plan that begins its last fault before `length`. Every kind comes before any comes more often than its share.
pub fn plan(seed: u64, length: Duration) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut plan, mut bag, mut at) = (Vec::new(), Vec::new(), Duration::from_secs(5));
    while at < length {
        if bag.is_empty() {
            bag = full_bag(&mut random);
        }
        plan.extend(bag.pop().map(|fault| Planned { at, fault }));
        at += millis(&mut random, 300..4_900);
    }
    plan
}

fn full_bag(random: &mut StdRng) -> Vec<Fault> {
    let mut bag = Vec::new();
    let mut put = |times: usize, random: &mut StdRng, draw: &dyn Fn(&mut StdRng) -> Fault| {
        bag.extend((0..times).map(|_| draw(random)));
    };
    put(3, random, &|random| Fault::KillProducer(random.random_range(0..100)));
    put(1, random, &|random| Fault::ReplaceProducer(random.random_range(0..100)));
    put(5, random, &|random| Fault::KillConsumer(random.random_range(0..100)));
    put(3, random, &|random| Fault::PauseConsumer(random.random_range(0..100), SESSION + millis(random, 3_000..8_000)));
    put(2, random, &|_| Fault::AddConsumer);
    put(2, random, &|random| Fault::RemoveConsumer(random.random_range(0..100)));
    for (server, kills, pauses) in [(Server::Redis, 2, 1), (Server::Mongo, 2, 1), (Server::Kafka, 1, 1)] {
        put(kills, random, &move |random| {
            Fault::KillServer(server, random.random_range(0..100), millis(random, 0..4_000))
        });
        put(pauses, random, &move |random| {
            Fault::PauseServer(server, random.random_range(0..100), millis(random, 500..6_000))
        });
    }
    put(4, random, &|_| Fault::FlushRedis);
    put(2, random, &|random| Fault::RollBackRedis(millis(random, 1_000..15_000)));
    put(1, random, &|random| Fault::RestoreBook(millis(random, 3_000..15_000)));
    bag.shuffle(random);
    bag
}

/// Where faults happen. Faults of one server wait for each other; all others overlap.
pub struct Scene<'a> {
    pub stack: &'a Stack,
    pub fleet: &'a Fleet,
    pub begun: Instant,
    servers: BTreeMap<Server, Mutex<()>>,
    /// Shared by those that start, stop or pause a consumer, held alone by those that need all consumers to be gone.
    consumers: RwLock<()>,
    happened: Mutex<BTreeMap<&'static str, usize>>,
}

impl<'a> Scene<'a> {
    pub fn new(stack: &'a Stack, fleet: &'a Fleet, begun: Instant) -> Self {
        let servers = [Server::Kafka, Server::Redis, Server::Mongo].map(|server| (server, Mutex::new(()))).into();
        Self { stack, fleet, begun, servers, consumers: RwLock::default(), happened: Mutex::default() }
    }

    /// Lets a plan happen and returns when the last fault is over and every server is back.
    pub fn play(&self, plan: &[Planned]) -> BTreeMap<&'static str, usize> {
        thread::scope(|scope| {
            for &Planned { at, fault } in plan {
                thread::sleep(at.saturating_sub(self.begun.elapsed()));
                scope.spawn(move || {
                    if self.happen(fault) {
                        *self.happened.lock().unwrap().entry(fault.kind()).or_default() += 1;
                    }
                });
            }
        });
        self.happened.lock().unwrap().clone()
    }

    fn tell(&self, what: impl fmt::Display) {
        println!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    /// Whether there was somebody to whom it could happen.
    fn happen(&self, fault: Fault) -> bool {
        match fault {
            Fault::KillProducer(number) => self.end_one(fault, Kind::is_producer, number, Fleet::kill),
            Fault::ReplaceProducer(number) => self.end_one(fault, Kind::is_producer, number, Fleet::leave),
            Fault::KillConsumer(number) => self.end_one(fault, |kind| kind == Kind::Consumer, number, Fleet::kill),
            Fault::PauseConsumer(number, pause) => {
                let _paused = self.consumers.read().unwrap_or_else(PoisonError::into_inner);
                let Some(number) = self.fleet.choose(|kind| kind == Kind::Consumer, number) else {
                    return self.tell_of(fault, None);
                };
                self.wait_until_counting();
                self.tell_of(fault, Some(number));
                let in_flight = self.hold_batches();
                let paused = self.fleet.pause(number);
                drop(in_flight);
                thread::sleep(pause);
                self.fleet.wake(number, paused);
                true
            }
            Fault::AddConsumer => {
                let _may_run = self.consumers.read().unwrap_or_else(PoisonError::into_inner);
                self.tell_of(fault, self.fleet.add_consumer())
            }
            Fault::RemoveConsumer(number) => {
                let _may_run = self.consumers.read().unwrap_or_else(PoisonError::into_inner);
                self.tell_of(fault, self.fleet.remove_consumer(number))
            }
            Fault::KillServer(server, number, down) => {
                let _mine = self.server(server);
                let name = self.name(server, number);
                self.tell(format_args!("{fault}: {name}"));
                self.stack.kill(&name);
                thread::sleep(down);
                self.stack.start(&name);
                self.tell(format_args!("{name} is back"));
                true
            }
            Fault::PauseServer(server, number, pause) => {
                let _mine = self.server(server);
                let Some(pid) = self.stack.pid(&self.name(server, number)) else { return false };
                self.tell(fault);
                signal(pid, "STOP");
                thread::sleep(pause);
                signal(pid, "CONT");
                true
            }
            Fault::FlushRedis => {
                let _mine = self.server(Server::Redis);
                self.wait_until_counting();
                let flushed = snapshot::tallies(&self.stack.urls)
                    .and_then(|mut redis| redis::cmd("FLUSHALL").query::<()>(&mut redis));
                self.tell(format_args!("{fault}: {flushed:?}"));
                flushed.is_ok()
            }
            Fault::RollBackRedis(age) => self.roll_back_redis(fault, age),
            Fault::RestoreBook(age) => self.restore_book(fault, age),
        }
    }

    /// Waits until every partition is being counted, but not for long. What happens to a counter that is recovering from
    /// something else finds it about to ask for its position anyway; only one in full swing believes that it knows it.
    fn wait_until_counting(&self) {
        let begun = Instant::now();
        let mut first = BTreeMap::new();
        while begun.elapsed() < CALM {
            if let Ok(positions) = snapshot::positions(&self.stack.urls) {
                if first.is_empty() {
                    first = positions;
                } else if first.iter().all(|(partition, first)| positions.get(partition).is_some_and(|at| at > first)) {
                    return;
                }
            }
            thread::sleep(LOOK);
        }
    }

    /// Keeps the batches that are counted now in flight until the guard is dropped: the book has the request, and the
    /// consumer waits for the answer. Not while something else is done to the book.
    fn hold_batches(&self) -> Option<HeldBook<'_>> {
        let mine = self.servers[&Server::Mongo].try_lock().ok()?;
        let pid = self.stack.pid("mongo")?;
        signal(pid, "STOP");
        let held = HeldBook { pid, _mine: mine };
        // Votes come in meanwhile, so that all partitions have a batch on its way.
        thread::sleep(HOLD);
        Some(held)
    }

    fn server(&self, server: Server) -> MutexGuard<'_, ()> {
        self.servers[&server].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, server: Server, number: u16) -> String {
        match server {
            Server::Kafka => self.stack.broker(number),
            Server::Redis => "redis".to_owned(),
            Server::Mongo => "mongo".to_owned(),
        }
    }

    fn end_one(
        &self,
        fault: Fault,
        is_of: impl Fn(Kind) -> bool,
        number: usize,
        end: impl FnOnce(&Fleet, u16),
    ) -> bool {
        let Some(number) = self.fleet.choose(is_of, number) else { return self.tell_of(fault, None) };
        self.tell_of(fault, Some(number));
        end(self.fleet, number);
        true
    }

    fn tell_of(&self, fault: Fault, victim: Option<u16>) -> bool {
        match victim {
            Some(number) => self.tell(format_args!("{fault}: {}", self.fleet.name(number))),
            None => self.tell(format_args!("{fault}: there is none")),
        }
        victim.is_some()
    }

    fn roll_back_redis(&self, fault: Fault, age: Duration) -> bool {
        let files = self.stack.data("redis").join("appendonlydir");
        let copy = tempfile::tempdir_in(&self.stack.folder).unwrap();
        let copied = copy.path().join("appendonlydir");
        {
            // The files are copied while the server writes them, as a backup would: what is half written at the end, Redis
            // leaves out when it starts. Rewriting is off, since it would change which files there are.
            let _mine = self.server(Server::Redis);
            let is_set = snapshot::tallies(&self.stack.urls).and_then(|mut redis| {
                redis::cmd("CONFIG").arg("SET").arg("auto-aof-rewrite-percentage").arg(0).query::<()>(&mut redis)
            });
            if is_set.is_err() {
                return false;
            }
            copy_folder(&files, &copied);
            self.tell("Redis' files are copied");
        }
        thread::sleep(age);
        let _mine = self.server(Server::Redis);
        self.stack.kill("redis");
        fs::remove_dir_all(&files).unwrap();
        fs::rename(&copied, &files).unwrap();
        self.stack.start("redis");
        self.tell(fault);
        true
    }

    fn restore_book(&self, fault: Fault, age: Duration) -> bool {
        let files = self.stack.data("mongo");
        let copy = tempfile::tempdir_in(&self.stack.folder).unwrap();
        let copied = copy.path().join("mongo");
        {
            // After SIGKILL, so that the files stand still.
            let _mine = self.server(Server::Mongo);
            self.stack.kill("mongo");
            copy_folder(&files, &copied);
            self.stack.start("mongo");
            self.tell("the book is copied");
        }
        thread::sleep(age);
        let _mine = self.server(Server::Mongo);
        let _gone = self.consumers.write().unwrap_or_else(PoisonError::into_inner);
        self.fleet.without_consumers(|| {
            self.stack.kill("mongo");
            fs::remove_dir_all(&files).unwrap();
            fs::rename(&copied, &files).unwrap();
            self.stack.start("mongo");
            self.tell(fault);
        });
        true
    }
}

struct HeldBook<'a> {
    pid: u32,
    _mine: MutexGuard<'a, ()>,
}

impl Drop for HeldBook<'_> {
    fn drop(&mut self) {
        signal(self.pid, "CONT");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().unwrap();
    assert!(copied.success(), "{} can't be copied", from.display());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_names_one_plan() {
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
