//! The processes of the system under test. When a process ends, it is restarted at once, as Kubernetes would do.

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

use crate::{on_signal::on_signal, program_named, stack::Urls};

/// The interval at which the processes and their memory are checked.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The longest time from SIGTERM to the end of a process. The programs allow 8 seconds; the rest is for a busy machine.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// The kinds of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProgramKind {
    RestProducer,
    GrpcProducer,
    Consumer,
    Results,
}

impl ProgramKind {
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

/// A program of the fleet with its flags. At most one process runs the program at a time.
struct Slot {
    kind: ProgramKind,
    number: u16,
    command: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
    /// Whether the process is restarted when it ends.
    is_wanted: bool,
}

struct Process {
    child: Child,
    /// How the process should end. `None` if the process was neither killed nor terminated.
    expected_end: Option<ExpectedEnd>,
    is_paused: bool,
}

#[derive(Clone, Copy, Debug)]
enum ExpectedEnd {
    Killed,
    /// Terminated at this time.
    Terminated(Instant),
}

/// All programs. Dropping the fleet does not end the processes: the owner must call [`stop`](Self::stop) or
/// [`kill_all`](Self::kill_all). SIGINT and SIGTERM kill the processes, too.
#[derive(Clone)]
pub struct Fleet {
    state: Arc<Mutex<FleetState>>,
    pub addresses: Addresses,
}

struct FleetState {
    slots: Vec<Slot>,
    /// The peak memory of a process of each kind, in KiB.
    peaks: BTreeMap<ProgramKind, u64>,
    /// Descriptions of the processes that ended unexpectedly, or did not end in time.
    problems: Vec<String>,
    /// The number of processes that were started.
    starts: usize,
    /// Whether all processes were killed. No process is started again.
    is_killed: bool,
}

/// The addresses of the producers and the results.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub rest: Vec<SocketAddr>,
    pub grpc: Vec<SocketAddr>,
    pub results: SocketAddr,
    first_admin: u16,
}

impl Addresses {
    /// Returns addresses on the ports from `port`: at most 3 for each kind of producer, 2 for the results, and then one
    /// admin port for each program.
    pub fn new(port: u16, producers: u16) -> Self {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            rest: (0..producers).map(|producer| at(port + producer)).collect(),
            grpc: (0..producers).map(|producer| at(port + 3 + producer)).collect(),
            results: at(port + 6),
            first_admin: port + 8,
        }
    }
}

impl Fleet {
    /// Starts all producers, the results, and `consumers` consumers, each with a log file in `folder`.
    pub fn start(folder: &Path, addresses: Addresses, urls: &Urls, config: &Path, consumers: usize) -> Self {
        fs::create_dir_all(folder).unwrap();
        let state =
            FleetState { slots: Vec::new(), peaks: BTreeMap::new(), problems: Vec::new(), starts: 0, is_killed: false };
        let fleet = Self { state: Arc::new(Mutex::new(state)), addresses };
        let add_slot = |kind: ProgramKind, number: u16, own_flags: &[String]| {
            let admin = fleet.addresses.first_admin + number;
            let mut command = vec![program_named(kind.name()).display().to_string()];
            // A producer needs only the vote log.
            let flags = urls.flags();
            command.extend(flags[..if kind.is_producer() { 2 } else { flags.len() }].iter().map(ToString::to_string));
            let common = ["--config", &config.display().to_string(), "--admin", &format!("127.0.0.1:{admin}")];
            command.extend(common.map(str::to_owned));
            command.extend_from_slice(own_flags);
            fleet.lock().slots.push(Slot {
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
        fleet.addresses.rest.iter().for_each(|address| add_slot(ProgramKind::RestProducer, next(), &listen(address)));
        fleet.addresses.grpc.iter().for_each(|address| add_slot(ProgramKind::GrpcProducer, next(), &listen(address)));
        let results = &fleet.addresses.results;
        let grpc = SocketAddr::from((results.ip(), results.port() + 1));
        let [flag, address] = listen(results);
        add_slot(ProgramKind::Results, next(), &[flag, address, "--grpc".to_owned(), grpc.to_string()]);
        (0..Self::MAX_CONSUMERS).for_each(|_| add_slot(ProgramKind::Consumer, next(), &[]));
        for (slot, index) in fleet.lock().slots.iter_mut().filter(|slot| slot.kind == ProgramKind::Consumer).zip(0..) {
            slot.is_wanted = index < consumers;
        }
        fleet.check_processes();
        let clone = fleet.clone();
        on_signal(move || clone.kill_all());
        let weak_state = Arc::downgrade(&fleet.state);
        let addresses = fleet.addresses.clone();
        thread::spawn(move || supervise(&weak_state, &addresses));
        fleet
    }

    pub const MAX_CONSUMERS: usize = 5;
    pub const MIN_CONSUMERS: usize = 2;

    fn lock(&self) -> std::sync::MutexGuard<'_, FleetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the wanted programs that do not run, kills the processes that do not end in time after SIGTERM, and
    /// records unexpected ends and the peak memory.
    fn check_processes(&self) {
        let mut state = self.lock();
        let FleetState { slots, peaks, problems, starts, is_killed } = &mut *state;
        if *is_killed {
            return;
        }
        for slot in slots {
            if let Some(process) = &mut slot.process {
                let peak = peaks.entry(slot.kind).or_default();
                *peak = (*peak).max(peak_memory_kib(process.child.id()).unwrap_or(0));
                if let Some(status) = process.child.try_wait().unwrap() {
                    problems.extend(unexpected_end(slot.kind, slot.number, process.expected_end, status));
                    slot.process = None;
                } else if let Some(ExpectedEnd::Terminated(since)) = process.expected_end
                    && !process.is_paused
                    && since.elapsed() > SHUTDOWN_TIMEOUT
                {
                    problems.push(format!(
                        "{} {} did not end within {SHUTDOWN_TIMEOUT:?}",
                        slot.kind.name(),
                        slot.number
                    ));
                    process.child.kill().unwrap();
                    process.expected_end = Some(ExpectedEnd::Killed);
                }
            }
            if slot.is_wanted && slot.process.is_none() {
                slot.process = Some(spawn(slot));
                *starts += 1;
            }
        }
    }

    /// Returns the numbers of the slots of a kind whose process runs and was not killed, terminated or paused.
    fn running(&self, is_kind: impl Fn(ProgramKind) -> bool) -> Vec<u16> {
        let state = self.lock();
        let running = |slot: &&Slot| {
            is_kind(slot.kind)
                && slot.process.as_ref().is_some_and(|process| process.expected_end.is_none() && !process.is_paused)
        };
        state.slots.iter().filter(running).map(|slot| slot.number).collect()
    }

    /// Returns the admin address of each running consumer.
    pub fn consumers(&self) -> Vec<SocketAddr> {
        let running = self.running(|kind| kind == ProgramKind::Consumer);
        running
            .into_iter()
            .map(|number| SocketAddr::from(([127, 0, 0, 1], self.addresses.first_admin + number)))
            .collect()
    }

    /// Selects one of the running slots of a kind: the slot at the index `number` modulo the count of these slots.
    pub fn choose(&self, is_kind: impl Fn(ProgramKind) -> bool, number: usize) -> Option<u16> {
        let running = self.running(is_kind);
        (!running.is_empty()).then(|| running[number % running.len()])
    }

    fn with_slot<T>(&self, number: u16, act: impl FnOnce(&mut Slot) -> T) -> T {
        act(&mut self.lock().slots[usize::from(number)])
    }

    pub fn name(&self, number: u16) -> String {
        self.with_slot(number, |slot| format!("{} {number}", slot.kind.name()))
    }

    /// Sends SIGKILL.
    pub fn kill(&self, number: u16) {
        self.with_slot(number, |slot| {
            if let Some(process) = &mut slot.process {
                process.expected_end = Some(ExpectedEnd::Killed);
                // The process may have ended already.
                let _ = process.child.kill();
            }
        });
    }

    /// Sends SIGTERM. The process is restarted if it is still wanted.
    pub fn terminate(&self, number: u16) {
        self.with_slot(number, |slot| {
            if let Some(process) = &mut slot.process {
                process.expected_end.get_or_insert(ExpectedEnd::Terminated(Instant::now()));
                signal(process.child.id(), "TERM");
            }
        });
    }

    /// Sends SIGSTOP. Returns the id of the process, or `None` if no process runs.
    pub fn pause(&self, number: u16) -> Option<u32> {
        self.with_slot(number, |slot| {
            let process = slot.process.as_mut()?;
            process.is_paused = true;
            signal(process.child.id(), "STOP");
            Some(process.child.id())
        })
    }

    /// Sends SIGCONT, if the process with this id still runs.
    pub fn resume(&self, number: u16, pid: Option<u32>) {
        self.with_slot(number, |slot| {
            if let Some(process) = &mut slot.process
                && Some(process.child.id()) == pid
            {
                process.is_paused = false;
                signal(process.child.id(), "CONT");
            }
        });
    }

    /// Adds a consumer. Returns its number, or `None` if there are [`MAX_CONSUMERS`](Self::MAX_CONSUMERS) already.
    pub fn add_consumer(&self) -> Option<u16> {
        let mut state = self.lock();
        let is_free = |slot: &&mut Slot| slot.kind == ProgramKind::Consumer && !slot.is_wanted;
        let slot = state.slots.iter_mut().find(is_free)?;
        slot.is_wanted = true;
        Some(slot.number)
    }

    /// Removes a running consumer with SIGTERM. Returns its number, or `None` if only
    /// [`MIN_CONSUMERS`](Self::MIN_CONSUMERS) are left, or none runs.
    pub fn remove_consumer(&self, number: usize) -> Option<u16> {
        let wanted =
            self.lock().slots.iter().filter(|slot| slot.kind == ProgramKind::Consumer && slot.is_wanted).count();
        if wanted <= Self::MIN_CONSUMERS {
            return None;
        }
        let number = self.choose(|kind| kind == ProgramKind::Consumer, number)?;
        self.with_slot(number, |slot| slot.is_wanted = false);
        self.terminate(number);
        Some(number)
    }

    /// Stops all consumers, calls `act`, and starts the same consumers again.
    pub fn without_consumers(&self, act: impl FnOnce()) {
        let consumers: Vec<u16> = {
            let mut state = self.lock();
            let consumers = state.slots.iter_mut().filter(|slot| slot.kind == ProgramKind::Consumer && slot.is_wanted);
            consumers
                .map(|slot| {
                    slot.is_wanted = false;
                    slot.number
                })
                .collect()
        };
        for &consumer in &consumers {
            self.terminate(consumer);
        }
        self.wait_until_ended(ProgramKind::Consumer);
        act();
        for &consumer in &consumers {
            self.with_slot(consumer, |slot| slot.is_wanted = true);
        }
    }

    fn wait_until_ended(&self, kind: ProgramKind) {
        crate::wait_for("programs to end", || {
            self.lock().slots.iter().all(|slot| slot.kind != kind || slot.process.is_none())
        });
    }

    /// Terminates all processes, and waits until they have ended.
    pub fn stop(&self) {
        let numbers: Vec<u16> = self
            .lock()
            .slots
            .iter_mut()
            .map(|slot| {
                slot.is_wanted = false;
                slot.number
            })
            .collect();
        for number in numbers {
            self.terminate(number);
        }
        for kind in ProgramKind::ALL {
            self.wait_until_ended(kind);
        }
    }

    /// Waits until every program is ready.
    pub fn wait_until_ready(&self) {
        let numbers: Vec<u16> =
            self.lock().slots.iter().filter(|slot| slot.is_wanted).map(|slot| slot.number).collect();
        for number in numbers {
            let url = format!("http://127.0.0.1:{}/readyz", self.addresses.first_admin + number);
            crate::wait_for(&format!("{} to be ready", self.name(number)), || ureq::get(&url).call().is_ok());
        }
    }

    /// Returns the peak memory of a process of each kind, in MiB.
    pub fn peaks(&self) -> BTreeMap<ProgramKind, u64> {
        self.lock().peaks.iter().map(|(&kind, kib)| (kind, kib / 1024)).collect()
    }

    /// Returns descriptions of the processes that ended unexpectedly, or did not end in time.
    pub fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// Returns the number of processes that were started.
    pub fn starts(&self) -> usize {
        self.lock().starts
    }

    /// Returns how often a text occurs in the logs of a kind.
    pub fn log_count(&self, kind: ProgramKind, text: &str) -> usize {
        let state = self.lock();
        let logs = state.slots.iter().filter(|slot| slot.kind == kind);
        logs.map(|slot| fs::read_to_string(&slot.log).unwrap_or_default().matches(text).count()).sum()
    }

    /// Kills all processes, and restarts none.
    pub fn kill_all(&self) {
        let mut state = self.lock();
        state.is_killed = true;
        for process in state.slots.iter_mut().filter_map(|slot| slot.process.as_mut()) {
            // SIGKILL also ends a paused process. The process may have ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// Kills all processes when dropped.
pub struct KillOnDrop<'a>(pub &'a Fleet);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        self.0.kill_all();
    }
}

/// Checks the processes until they were killed, or until the fleet is gone.
fn supervise(weak_state: &Weak<Mutex<FleetState>>, addresses: &Addresses) {
    while let Some(state) = weak_state.upgrade() {
        let fleet = Fleet { state, addresses: addresses.clone() };
        fleet.check_processes();
        if fleet.lock().is_killed {
            return;
        }
        drop(fleet);
        thread::sleep(POLL_INTERVAL);
    }
}

fn spawn(slot: &Slot) -> Process {
    let log = File::options().create(true).append(true).open(&slot.log).unwrap();
    let mut command = Command::new(&slot.command[0]);
    command.args(&slot.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Process { child: command.spawn().unwrap(), expected_end: None, is_paused: false }
}

/// Returns a description of the end of a process, if the end is unexpected.
fn unexpected_end(
    kind: ProgramKind,
    number: u16,
    expected_end: Option<ExpectedEnd>,
    status: ExitStatus,
) -> Option<String> {
    let problem = match expected_end {
        Some(ExpectedEnd::Killed) => return None,
        Some(ExpectedEnd::Terminated(_)) if status.success() => return None,
        Some(ExpectedEnd::Terminated(_)) => "was terminated and ended",
        None => "ended",
    };
    Some(format!("{} {number} {problem} with {status}", kind.name()))
}

/// Sends a signal. `name` is the name of the signal without `SIG`.
pub fn signal(pid: u32, name: &str) {
    // The process may have ended already.
    let _ = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Returns the peak resident memory of a process, in KiB.
fn peak_memory_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok())
}
