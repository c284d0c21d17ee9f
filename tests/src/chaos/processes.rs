//! The system under test: each service as a program of its own, started again at once when it ends, as Kubernetes would.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::{ending::on_signal, program_named, stack::Urls};

/// How often it is looked whether a program has ended, and how much memory it has.
const LOOK: Duration = Duration::from_millis(50);

/// A program that was told to leave has 8 seconds; the rest is for a busy machine.
const LEAVE: Duration = Duration::from_secs(20);

/// What a program does, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    RestProducer,
    GrpcProducer,
    Consumer,
    Results,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::RestProducer, Self::GrpcProducer, Self::Consumer, Self::Results];

    pub fn is_producer(self) -> bool {
        matches!(self, Self::RestProducer | Self::GrpcProducer)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::RestProducer => "rest-producer",
            Self::GrpcProducer => "grpc-producer",
            Self::Consumer => "consumer",
            Self::Results => "results",
        }
    }
}

/// A place in the fleet: one program with its address, which several processes fill one after the other.
struct Place {
    kind: Kind,
    number: u16,
    command: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    /// Started again when it ends.
    is_wanted: bool,
}

struct Process {
    child: Child,
    /// Whether we asked for its end, and how.
    ending: Option<Ending>,
    is_paused: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Killed,
    Leaving(Instant),
}

/// All programs. Killed when dropped.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Mutex<Inner>>,
    pub addresses: Addresses,
}

struct Inner {
    places: Vec<Place>,
    /// The most memory that a process of each kind had at any time, in KiB.
    peaks: BTreeMap<Kind, u64>,
    /// Processes that ended, or did not end, against our expectation.
    problems: Vec<String>,
    starts: usize,
    is_over: bool,
}

/// Where the doors and the results are.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub rest: Vec<SocketAddr>,
    pub grpc: Vec<SocketAddr>,
    pub results: SocketAddr,
    first_admin: u16,
}

impl Addresses {
    /// On ports from `port`: 3 doors of each kind at most, results, and 20 admin ports.
    pub fn new(port: u16, doors: u16) -> Self {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            rest: (0..doors).map(|door| at(port + door)).collect(),
            grpc: (0..doors).map(|door| at(port + 3 + door)).collect(),
            results: at(port + 6),
            first_admin: port + 8,
        }
    }
}

impl Fleet {
    /// Starts all doors, some consumers and the results, each with a log in `folder`.
    pub fn start(folder: &Path, addresses: Addresses, urls: &Urls, config: &Path, consumers: usize) -> Self {
        fs::create_dir_all(folder).unwrap();
        let inner =
            Inner { places: Vec::new(), peaks: BTreeMap::new(), problems: Vec::new(), starts: 0, is_over: false };
        let fleet = Self { inner: Arc::new(Mutex::new(inner)), addresses };
        let common = |kind: Kind, number: u16, more: &[String]| {
            let admin = fleet.addresses.first_admin + number;
            let mut command = vec![program_named(kind.name()).display().to_string()];
            // A producer needs to know of the log alone.
            let flags = urls.flags();
            command.extend(flags[..if kind.is_producer() { 2 } else { flags.len() }].iter().map(ToString::to_string));
            let fixed = ["--config", &config.display().to_string(), "--admin", &format!("127.0.0.1:{admin}")];
            command.extend(fixed.map(str::to_owned));
            command.extend_from_slice(more);
            fleet.lock().places.push(Place {
                kind,
                number,
                command,
                log: folder.join(format!("{}-{number}.log", kind.name())),
                process: None,
                is_wanted: true,
            });
        };
        let mut number = 0..;
        let mut next = || number.next().unwrap();
        let listen = |address: &SocketAddr| ["--listen".to_owned(), address.to_string()];
        fleet.addresses.rest.iter().for_each(|address| common(Kind::RestProducer, next(), &listen(address)));
        fleet.addresses.grpc.iter().for_each(|address| common(Kind::GrpcProducer, next(), &listen(address)));
        let results = &fleet.addresses.results;
        let grpc = SocketAddr::from((results.ip(), results.port() + 1));
        let [flag, address] = listen(results);
        common(Kind::Results, next(), &[flag, address, "--grpc".to_owned(), grpc.to_string()]);
        (0..Self::MOST_CONSUMERS).for_each(|_| common(Kind::Consumer, next(), &[]));
        for (place, index) in fleet.lock().places.iter_mut().filter(|place| place.kind == Kind::Consumer).zip(0..) {
            place.is_wanted = index < consumers;
        }
        fleet.look();
        let watched = Arc::downgrade(&fleet.inner);
        let ended = Fleet { inner: Arc::clone(&fleet.inner), addresses: fleet.addresses.clone() };
        on_signal(move || ended.end());
        let addresses = fleet.addresses.clone();
        thread::spawn(move || watch(&watched, &addresses));
        fleet
    }

    pub const MOST_CONSUMERS: usize = 5;
    pub const FEWEST_CONSUMERS: usize = 2;

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is wanted and not there, notes what ended and what memory is used.
    fn look(&self) {
        let mut inner = self.lock();
        let Inner { places, peaks, problems, starts, is_over } = &mut *inner;
        if *is_over {
            return;
        }
        for place in places {
            if let Some(process) = &mut place.process {
                let peak = peaks.entry(place.kind).or_default();
                *peak = (*peak).max(memory_peak(process.child.id()).unwrap_or(0));
                if let Some(status) = process.child.try_wait().unwrap() {
                    problems.extend(unexpected(place.kind, place.number, process.ending, status));
                    place.process = None;
                } else if let Some(Ending::Leaving(since)) = process.ending
                    && !process.is_paused
                    && since.elapsed() > LEAVE
                {
                    problems.push(format!("{} {} did not leave within {LEAVE:?}", place.kind.name(), place.number));
                    process.child.kill().unwrap();
                    process.ending = Some(Ending::Killed);
                }
            }
            if place.is_wanted && place.process.is_none() {
                place.process = Some(spawn(place));
                *starts += 1;
            }
        }
    }

    /// The numbers of the places of a kind that run and are not about to end.
    fn running(&self, is_of: impl Fn(Kind) -> bool) -> Vec<u16> {
        let inner = self.lock();
        let running = |place: &&Place| {
            is_of(place.kind)
                && place.process.as_ref().is_some_and(|process| process.ending.is_none() && !process.is_paused)
        };
        inner.places.iter().filter(running).map(|place| place.number).collect()
    }

    /// One of those that run, chosen by any number.
    pub fn choose(&self, is_of: impl Fn(Kind) -> bool, number: usize) -> Option<u16> {
        let running = self.running(is_of);
        (!running.is_empty()).then(|| running[number % running.len()])
    }

    fn with<T>(&self, number: u16, act: impl FnOnce(&mut Place) -> T) -> T {
        act(&mut self.lock().places[usize::from(number)])
    }

    pub fn name(&self, number: u16) -> String {
        self.with(number, |place| format!("{} {number}", place.kind.name()))
    }

    /// SIGKILL: it gets no chance to finish anything.
    pub fn kill(&self, number: u16) {
        self.with(number, |place| {
            if let Some(process) = &mut place.process {
                process.ending = Some(Ending::Killed);
                // It may have ended already.
                let _ = process.child.kill();
            }
        });
    }

    /// SIGTERM. It is started again, unless it is no longer wanted.
    pub fn leave(&self, number: u16) {
        self.with(number, |place| {
            if let Some(process) = &mut place.process {
                process.ending.get_or_insert(Ending::Leaving(Instant::now()));
                signal(process.child.id(), "TERM");
            }
        });
    }

    /// SIGSTOP. Returns who it was.
    pub fn pause(&self, number: u16) -> Option<u32> {
        self.with(number, |place| {
            let process = place.process.as_mut()?;
            process.is_paused = true;
            signal(process.child.id(), "STOP");
            Some(process.child.id())
        })
    }

    /// SIGCONT, if that process is still there.
    pub fn wake(&self, number: u16, pid: Option<u32>) {
        self.with(number, |place| {
            if let Some(process) = &mut place.process
                && Some(process.child.id()) == pid
            {
                process.is_paused = false;
                signal(process.child.id(), "CONT");
            }
        });
    }

    /// One consumer more, unless there are enough.
    pub fn add_consumer(&self) -> Option<u16> {
        let mut inner = self.lock();
        let free = |place: &&mut Place| place.kind == Kind::Consumer && !place.is_wanted;
        let place = inner.places.iter_mut().find(free)?;
        place.is_wanted = true;
        Some(place.number)
    }

    /// One consumer less, unless there are too few: it is told to leave.
    pub fn remove_consumer(&self, number: usize) -> Option<u16> {
        let wanted = self.lock().places.iter().filter(|place| place.kind == Kind::Consumer && place.is_wanted).count();
        if wanted <= Self::FEWEST_CONSUMERS {
            return None;
        }
        let number = self.choose(|kind| kind == Kind::Consumer, number)?;
        self.with(number, |place| place.is_wanted = false);
        self.leave(number);
        Some(number)
    }

    /// Stops all consumers, calls, and starts as many again.
    pub fn without_consumers(&self, act: impl FnOnce()) {
        let consumers: Vec<u16> = {
            let mut inner = self.lock();
            let consumers = inner.places.iter_mut().filter(|place| place.kind == Kind::Consumer && place.is_wanted);
            consumers
                .map(|place| {
                    place.is_wanted = false;
                    place.number
                })
                .collect()
        };
        for &consumer in &consumers {
            self.leave(consumer);
        }
        self.wait_until_gone(Kind::Consumer);
        act();
        for &consumer in &consumers {
            self.with(consumer, |place| place.is_wanted = true);
        }
    }

    fn wait_until_gone(&self, kind: Kind) {
        crate::wait_for("programs to leave", || {
            self.lock().places.iter().all(|place| place.kind != kind || place.process.is_none())
        });
    }

    /// Tells all to leave and waits until they have.
    pub fn stop(&self) {
        let numbers: Vec<u16> = self
            .lock()
            .places
            .iter_mut()
            .map(|place| {
                place.is_wanted = false;
                place.number
            })
            .collect();
        for number in numbers {
            self.leave(number);
        }
        for kind in Kind::ALL {
            self.wait_until_gone(kind);
        }
    }

    /// Waits until every program says that it is ready.
    pub fn wait_until_ready(&self) {
        let numbers: Vec<u16> =
            self.lock().places.iter().filter(|place| place.is_wanted).map(|place| place.number).collect();
        for number in numbers {
            let url = format!("http://127.0.0.1:{}/readyz", self.addresses.first_admin + number);
            crate::wait_for(&format!("{} to be ready", self.name(number)), || ureq::get(&url).call().is_ok());
        }
    }

    /// The most memory of each kind, in MiB.
    pub fn peaks(&self) -> BTreeMap<Kind, u64> {
        self.lock().peaks.iter().map(|(&kind, kib)| (kind, kib / 1024)).collect()
    }

    /// What ended, or did not end, against our expectation.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    pub fn starts(&self) -> usize {
        self.lock().starts
    }

    /// How often the logs of a kind say something.
    pub fn said(&self, kind: Kind, what: &str) -> usize {
        let inner = self.lock();
        let logs = inner.places.iter().filter(|place| place.kind == kind);
        logs.map(|place| fs::read_to_string(&place.log).unwrap_or_default().matches(what).count()).sum()
    }

    /// Kills everything, at once.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.is_over = true;
        for process in inner.places.iter_mut().filter_map(|place| place.process.as_mut()) {
            // SIGKILL ends a paused process, too. It may have ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn watch(fleet: &Weak<Mutex<Inner>>, addresses: &Addresses) {
    while let Some(inner) = fleet.upgrade() {
        let fleet = Fleet { inner, addresses: addresses.clone() };
        fleet.look();
        if fleet.lock().is_over {
            return;
        }
        drop(fleet);
        thread::sleep(LOOK);
    }
}

fn spawn(place: &Place) -> Process {
    let log = File::options().create(true).append(true).open(&place.log).unwrap();
    let mut command = Command::new(&place.command[0]);
    command.args(&place.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process { child: command.spawn().unwrap(), ending: None, is_paused: false }
}

/// What is wrong with a process' end, if anything is.
fn unexpected(kind: Kind, number: u16, ending: Option<Ending>, status: ExitStatus) -> Option<String> {
    let problem = match ending {
        Some(Ending::Killed) => return None,
        Some(Ending::Leaving(_)) if status.success() => return None,
        Some(Ending::Leaving(_)) => "was told to leave and",
        None => "",
    };
    Some(format!("{} {number} {problem} ended with {status}", kind.name()))
}

/// Sends a signal by its name.
pub fn signal(pid: u32, name: &str) {
    // The process may be gone: then there is nothing to tell it.
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// The most resident memory that a process had, in KiB.
fn memory_peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
}
