//! How we try to break it: a flood on the real programs and the real servers, faults at random, and a checker that believes
//! nobody.
//!
//! | subject | file |
//! |---|---|
//! | the programs, started again when they end | [`processes`] |
//! | who votes, and does not give up | [`clients`] |
//! | what they were told | [`told`] |
//! | what is done to it | [`faults`] |
//! | what must be true at any time | [`watch`] |
//! | what the stores hold, read by the drivers alone | [`snapshot`] |
//! | whether that is what clients were told | [`checker`] |

pub mod checker;
pub mod clients;
pub mod faults;
pub mod processes;
pub mod snapshot;
pub mod told;
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
    checker::{Kind as Violated, Violation, check},
    clients::{CANDIDATES, Clients},
    faults::{Scene, plan},
    processes::{Addresses, Fleet, Kind},
    snapshot::{Book, Log, PREFIX},
    told::{ONCE, OPEN, Told},
    watch::Watch,
};
use crate::{command, stack::Stack};

/// The voters' secret of the run.
const SECRET: &str = "a secret of more than sixteen bytes";

/// After the last fault and the last vote, counting has to be through within this. Alone on the machine it takes seconds.
const CATCH_UP: Duration = Duration::from_mins(2);

/// The most memory of one of our processes, in MiB. Each was seen with 15 to 35; the bounded queues, batches and fetch
/// buffers of a process allow for some tens more, and the rest is for the allocator.
const MOST_MEMORY: u64 = 100;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long it is flooded.
    pub length: Duration,
    pub seed: u64,
    /// Votes a second.
    pub rate: f64,
    pub brokers: u16,
    /// Where the servers' data and all logs are.
    pub folder: PathBuf,
    /// The first of 40 ports: servers, doors, admin endpoints.
    pub port: u16,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that is wrong. Empty if all promises were kept.
    pub violations: Vec<String>,
    pub faults: BTreeMap<&'static str, usize>,
}

/// Runs it all. Everything that was started has ended when it returns, or panics.
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
    let _ended = EndOfFleet(&fleet);
    fleet.wait_until_ready();

    let begun = Instant::now();
    let clients = Clients::start(&fleet.addresses, rate, seed, runtime.handle());
    let watch = Watch::start(&stack.urls, fleet.addresses.results);
    let mut violations = Vec::new();
    let faults = std::thread::scope(|scope| {
        let scene = Scene::new(&stack, &fleet, begun);
        let playing = scope.spawn(move || scene.play(&plan(seed, length.saturating_sub(Duration::from_secs(10)))));
        while !playing.is_finished() || begun.elapsed() < length {
            violations.extend(watch.look(&|contest| clients.sent(contest)));
            std::thread::sleep(Duration::from_millis(100));
        }
        playing.join().unwrap()
    });

    println!("{:7.1} s  the last votes", begun.elapsed().as_secs_f64());
    let outcome = clients.finish(SECRET.into());
    let told = outcome.told;
    let caught_up = Instant::now();
    let log = Log::open(&stack.urls);
    if let Err(problem) = catch_up(&log, &stack) {
        violations.push(format!("counting did not catch up within {CATCH_UP:?}: {problem}"));
    }
    let caught_up = caught_up.elapsed();
    println!("{:7.1} s  all is counted", begun.elapsed().as_secs_f64());
    let shown = watch.shown(OPEN);
    let said = |what| fleet.said(Kind::Consumer, what);
    println!("consumers said: {} x stores moved, {} x counting paused", said("stores moved"), said("counting paused"));
    if said("partition stopped") > 0 {
        violations.push(format!("{} times a partition was stopped for an operator", said("partition stopped")));
    }
    let panicked: usize = Kind::ALL.iter().map(|&kind| fleet.said(kind, "panicked at")).sum();
    if panicked > 0 {
        violations.push(format!("{panicked} panics in the programs' logs"));
    }
    fleet.stop();

    let snapshot = snapshot::take(&stack.urls, runtime.handle());
    violations.extend(check(&told, &snapshot).iter().map(ToString::to_string));
    violations.extend(outcome.problems);
    violations.extend(fleet.problems());
    let in_contest = snapshot.book.iter().filter(|document| document.vote.contest == OPEN).count();
    if shown != Some(in_contest as u64) {
        violations.push(format!("the results show {shown:?} votes for {OPEN}, and {in_contest} are in the book"));
    }
    for (kind, peak) in fleet.peaks() {
        println!("{}: at most {peak} MiB", kind.name());
        if peak > MOST_MEMORY {
            violations.push(format!("a {} had {peak} MiB, more than {MOST_MEMORY}", kind.name()));
        }
    }
    let (audited, audit) = audit(&stack, &programs);
    println!("audit: {audit}");
    if !audited {
        violations.push(format!("the audit finds differences: {audit}"));
    }
    if violations.is_empty() {
        violations.extend(plant(&told, &stack, &runtime, &programs));
    }

    let receipts: usize = told.casts.iter().map(|cast| cast.receipts.len()).sum();
    let attempts: usize = told.casts.iter().map(|cast| cast.attempts).sum();
    println!("answers: {:#?}", outcome.answers);
    println!("the slowest answer of a door took {:?}", outcome.slowest);
    println!("faults: {faults:#?}");
    println!(
        "{} votes in {attempts} attempts with {receipts} receipts; {} records, {} in the book; {} process starts; \
         caught up in {caught_up:.1?}",
        told.casts.len(),
        snapshot.log.len(),
        snapshot.book.len(),
        fleet.starts(),
    );
    let acceptances: HashSet<_> =
        snapshot.log.iter().map(|record| (record.vote.id, record.time, &record.vote.door)).collect();
    println!("{} records are copies that Kafka's client made", snapshot.log.len() - acceptances.len());
    if violations.is_empty() {
        println!("seed {seed}: every promise was kept");
    } else {
        println!("seed {seed}: BROKEN PROMISES: {} violations, of which the first are", violations.len());
        stack.keep();
    }
    violations.iter().take(50).for_each(|violation| println!("  {violation}"));
    Report { violations, faults }
}

struct EndOfFleet<'a>(&'a Fleet);

impl Drop for EndOfFleet<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Writes the configuration that all programs share.
fn configure(folder: &Path) -> PathBuf {
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

/// Waits until the tallies' positions are the log's ends, and the ends stand still.
fn catch_up(log: &Log, stack: &Stack) -> Result<(), String> {
    let begun = Instant::now();
    let mut before = BTreeMap::new();
    loop {
        let look = || -> Result<_, String> {
            let ends = log.try_ends("votes")?;
            let positions = snapshot::positions(&stack.urls).map_err(|error| error.to_string())?;
            Ok((ends, positions))
        };
        let seen = look();
        if let Ok((ends, positions)) = &seen {
            let is_counted = ends.iter().all(|(partition, end)| positions.get(partition).unwrap_or(&0) == end);
            if is_counted && before == *ends {
                return Ok(());
            }
            before.clone_from(ends);
        }
        if begun.elapsed() > CATCH_UP {
            return Err(format!("{seen:?}"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The audit's word, and whether it finds that all is well.
fn audit(stack: &Stack, folder: &Path) -> (bool, Value) {
    let mut command = command();
    command.args(["audit", "--json"]).args(stack.urls.flags()).current_dir(folder).stdin(Stdio::null());
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(report["ok"].as_bool().unwrap(), output.status.success(), "{report}");
    (output.status.success(), report)
}

/// Shows that checker and audit would have found a loss and a double, by making them.
fn plant(told: &Told, stack: &Stack, runtime: &Runtime, folder: &Path) -> Vec<String> {
    let mut missed = Vec::new();
    let mut expect = |what: &str, kind: Violated| {
        let found: Vec<Violation> = check(told, &snapshot::take(&stack.urls, runtime.handle()));
        let (is_well, report) = audit(stack, folder);
        println!("planted {what}: the checker finds {} violations, the audit {}", found.len(), report["differences"]);
        if !found.iter().any(|violation| violation.kind == kind) {
            missed.push(format!("planted {what}: the checker did not find {kind:?}, but {found:?}"));
        }
        if is_well {
            missed.push(format!("planted {what}: the audit did not find it"));
        }
    };
    let victim = told.casts.iter().find(|cast| cast.contest == OPEN).unwrap();
    let book = Book::open(&stack.urls, runtime.handle());
    let document = book.remove(&told.ballot(victim));
    expect("a loss, a document that is deleted", Violated::LostFromBook);
    book.put_back(document);

    let mut redis = snapshot::tallies(&stack.urls).unwrap();
    let mut add = |votes: i64| -> i64 { redis.hincr(format!("{PREFIX}tally:{OPEN}"), &victim.name, votes).unwrap() };
    add(1);
    expect("a double, a count that is raised", Violated::WrongTally);
    add(-1);

    let left = check(told, &snapshot::take(&stack.urls, runtime.handle()));
    missed.extend(left.iter().map(|violation| format!("after what was planted was taken back: {violation}")));
    missed
}
