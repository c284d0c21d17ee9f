//! The chaos test floods the real programs on real servers, injects random faults, and checks the promises with an
//! independent checker.
//!
//! | subject | file |
//! |---|---|
//! | the programs, which are restarted when they end | [`processes`] |
//! | the clients, which send each vote until it is acknowledged | [`clients`] |
//! | the votes and the receipts of the clients | [`history`] |
//! | the plan of faults, and their injection | [`faults`] |
//! | checks during the run | [`watch`] |
//! | the contents of the stores, read with the drivers only | [`snapshot`] |
//! | the comparison of the history with the stores | [`checker`] |

pub mod checker;
pub mod clients;
pub mod faults;
pub mod history;
pub mod processes;
pub mod snapshot;
pub mod watch;

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use redis::Commands;
use serde_json::Value;
use tokio::runtime::Runtime;

use self::{
    checker::{Violation, ViolationKind, check},
    clients::{CANDIDATES, Clients},
    faults::{FaultInjector, plan},
    history::{ClientHistory, ONCE, OPEN},
    processes::{Addresses, Fleet, KillOnDrop, ProgramKind},
    snapshot::{Ledger, Log, PREFIX},
    watch::Watcher,
};
use crate::{command, stack::Stack};

/// The secret of the voters' HMACs.
pub const SECRET: &str = "a secret of more than sixteen bytes";

/// The longest time from the last vote until all votes are counted. On an idle machine, counting them takes seconds.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(2);

/// The maximum memory of one process of the system, in MiB. A process usually has 15 to 35 MiB. Bounded queues, batches
/// and fetch buffers may need some tens of MiB more; the rest of the limit is for the allocator.
const MAX_MEMORY_MIB: u64 = 100;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The length of the flood.
    pub length: Duration,
    pub seed: u64,
    /// Votes per second.
    pub rate: f64,
    pub brokers: u16,
    /// The folder of the servers' data and all logs.
    pub folder: PathBuf,
    /// The first of 40 consecutive ports, for servers, producers and admin ports.
    pub port: u16,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The violations; empty if every promise was kept.
    pub violations: Vec<String>,
    /// The number of faults by kind.
    pub faults: BTreeMap<&'static str, usize>,
}

/// Runs the chaos test. When this function returns or panics, every process that it started has ended.
pub fn run(options: &Options) -> Report {
    let Options { length, seed, rate, brokers, ref folder, port } = *options;
    println!("seed {seed}: {length:?} at {rate} votes/s on {brokers} broker(s); logs in {}", folder.display());
    let programs = folder.join("programs");
    if programs.exists() {
        fs::remove_dir_all(&programs).unwrap();
    }
    fs::create_dir_all(&programs).unwrap();
    let config = configure(&programs);
    let runtime = Runtime::new().unwrap();
    let mut stack = Stack::up(&folder.join("servers"), port, brokers);
    let fleet = Fleet::start(&programs, Addresses::new(port + 10, 2), &stack.urls, &config, 3);
    let _guard = KillOnDrop(&fleet);
    fleet.wait_until_ready();

    let begun = Instant::now();
    let clients = Clients::start(&fleet.addresses, rate, seed, runtime.handle());
    let watcher = Watcher::new(&stack.urls, fleet.addresses.results);
    let mut violations = Vec::new();
    let faults = std::thread::scope(|scope| {
        let injector = FaultInjector::new(&stack, &fleet, begun);
        let injection = scope.spawn(move || injector.run(&plan(seed, length.saturating_sub(Duration::from_secs(10)))));
        while !injection.is_finished() || begun.elapsed() < length {
            violations.extend(watcher.violations(&|contest| clients.cast_count(contest)));
            std::thread::sleep(Duration::from_millis(100));
        }
        injection.join().unwrap()
    });

    println!("{:7.1} s  voting stops", begun.elapsed().as_secs_f64());
    let client_report = clients.finish(SECRET.into());
    let history = client_report.history;
    let voting_stopped = Instant::now();
    let log = Log::open(&stack.urls);
    if let Err(problem) = wait_until_counted(&log, &stack) {
        violations.push(format!("counting did not catch up within {CATCH_UP_TIMEOUT:?}: {problem}"));
    }
    let caught_up_after = voting_stopped.elapsed();
    println!("{:7.1} s  the wait for the last votes to be counted ends", begun.elapsed().as_secs_f64());
    let results_total = watcher.results_total(OPEN);
    let count_in_logs = |text| fleet.log_count(ProgramKind::Consumer, text);
    println!(
        "logs of the consumers: {} x stores moved, {} x counting paused",
        count_in_logs("stores moved"),
        count_in_logs("counting paused")
    );
    let halts = count_in_logs("partition stopped");
    if halts > 0 {
        violations.push(format!("partitions were halted {halts} times, and wait for an operator"));
    }
    let panicked: usize = ProgramKind::ALL.iter().map(|&kind| fleet.log_count(kind, "panicked at")).sum();
    if panicked > 0 {
        violations.push(format!("{panicked} panics in the programs' logs"));
    }
    fleet.stop();

    let snapshot = snapshot::take(&stack.urls, runtime.handle());
    violations.extend(check(&history, &snapshot).iter().map(ToString::to_string));
    violations.extend(client_report.problems);
    violations.extend(fleet.problems());
    let ledger_total = snapshot.ledger.iter().filter(|document| document.vote.contest == OPEN).count();
    if results_total != Some(ledger_total as u64) {
        violations
            .push(format!("the results show {results_total:?} votes for {OPEN}, and {ledger_total} are in the ledger"));
    }
    for (kind, peak) in fleet.peaks() {
        println!("{}: at most {peak} MiB", kind.name());
        if peak > MAX_MEMORY_MIB {
            violations.push(format!("a {} had {peak} MiB, more than {MAX_MEMORY_MIB}", kind.name()));
        }
    }
    let (is_ok, report) = run_audit(&stack, &programs);
    println!("audit: {report}");
    if !is_ok {
        violations.push(format!("the audit finds differences: {report}"));
    }
    if violations.is_empty() {
        violations.extend(verify_detection(&history, &stack, &runtime, &programs));
    }

    let receipts: usize = history.casts.iter().map(|cast| cast.receipts.len()).sum();
    let attempts: usize = history.casts.iter().map(|cast| cast.attempts).sum();
    println!("responses: {:#?}", client_report.responses);
    println!("the slowest response of a producer took {:?}", client_report.slowest);
    println!("faults: {faults:#?}");
    println!(
        "{} votes in {attempts} attempts with {receipts} receipts; {} records, {} in the ledger; {} process starts; \
         caught up in {caught_up_after:.1?}",
        history.casts.len(),
        snapshot.log.len(),
        snapshot.ledger.len(),
        fleet.starts(),
    );
    let acceptances: HashSet<_> =
        snapshot.log.iter().map(|record| (record.vote.id, record.time, &record.vote.producer)).collect();
    println!("{} records are duplicates that Kafka's client created", snapshot.log.len() - acceptances.len());
    if violations.is_empty() {
        println!("seed {seed}: every promise was kept");
    } else {
        println!("seed {seed}: BROKEN PROMISES: {} violations; at most 50 follow", violations.len());
        stack.keep_data();
    }
    violations.iter().take(50).for_each(|violation| println!("  {violation}"));
    Report { violations, faults }
}

/// Writes the configuration file that all programs share. Returns its path.
pub fn configure(folder: &Path) -> PathBuf {
    let (secret, config) = (folder.join("secret"), folder.join("ovation.toml"));
    fs::write(&secret, SECRET).unwrap();
    let text = format!(
        "secret_file = \"{}\"\n\n[contests.{OPEN}]\n\n[contests.{ONCE}]\ncandidates = {CANDIDATES:?}\n\
         votes_per_voter = \"one\"\n",
        secret.canonicalize().unwrap().display()
    );
    fs::write(&config, text).unwrap();
    config
}

/// Waits until the positions of the tallies equal the ends of the log, and the ends have not changed since the read
/// before. After [`CATCH_UP_TIMEOUT`], the error has the last positions.
fn wait_until_counted(log: &Log, stack: &Stack) -> Result<(), String> {
    let begun = Instant::now();
    let mut before = BTreeMap::new();
    loop {
        let read = || -> Result<_, String> {
            let ends = log.try_ends("votes")?;
            let positions = snapshot::read_positions(&stack.urls).map_err(|error| error.to_string())?;
            Ok((ends, positions))
        };
        let state = read();
        if let Ok((ends, positions)) = &state {
            let is_counted = ends.iter().all(|(partition, end)| positions.get(partition).unwrap_or(&0) == end);
            if is_counted && before == *ends {
                return Ok(());
            }
            before.clone_from(ends);
        }
        if begun.elapsed() > CATCH_UP_TIMEOUT {
            return Err(format!("{state:?}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs `ovation audit`. Returns `true` if the audit found no difference, and the report.
fn run_audit(stack: &Stack, folder: &Path) -> (bool, Value) {
    let mut command = command();
    command.args(["audit", "--json"]).args(stack.urls.flags()).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["ok"].as_bool().unwrap(), output.status.success(), "{report}");
    (output.status.success(), report)
}

/// Changes the stores, verifies that the checker and the audit detect a loss and a double count, and undoes the
/// changes. Returns what the checker or the audit did not detect.
fn verify_detection(history: &ClientHistory, stack: &Stack, runtime: &Runtime, folder: &Path) -> Vec<String> {
    let mut missed = Vec::new();
    let mut verify = |change: &str, kind: ViolationKind| {
        let found: Vec<Violation> = check(history, &snapshot::take(&stack.urls, runtime.handle()));
        let (is_ok, report) = run_audit(stack, folder);
        println!("after {change}: the checker finds {} violations, the audit {}", found.len(), report["differences"]);
        if !found.iter().any(|violation| violation.kind == kind) {
            missed.push(format!("after {change}: the checker did not find {kind:?}, but {found:?}"));
        }
        if is_ok {
            missed.push(format!("after {change}: the audit found no difference"));
        }
    };
    let victim = history.casts.iter().find(|cast| cast.contest == OPEN).unwrap();
    let ledger = Ledger::open(&stack.urls, runtime.handle());
    let document = ledger.remove(&history.ballot(victim));
    verify("a loss (a deleted document)", ViolationKind::LostFromLedger);
    ledger.insert(document);

    let mut redis = snapshot::connect_to_tallies(&stack.urls).unwrap();
    let mut add = |votes: i64| -> i64 { redis.hincr(format!("{PREFIX}tally:{OPEN}"), &victim.name, votes).unwrap() };
    add(1);
    verify("a double count (a raised tally)", ViolationKind::WrongTally);
    add(-1);

    let remaining = check(history, &snapshot::take(&stack.urls, runtime.handle()));
    missed.extend(remaining.iter().map(|violation| format!("after the changes were undone: {violation}")));
    missed
}
