//! A flow that is larger than the disk: the log and the book are bounded, and nothing that was counted is forgotten.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mongodb::bson::doc;
use serde_json::{Value, json};
use tests::{Addresses, Servers, System, audit, run, stack};

/// How much the log and the book may hold, each.
const BOUND: &str = "64MB";
const BOUND_BYTES: u64 = 64_000_000;

/// Batches of the flood, and votes of a batch: 500 MB, as 1 kB a vote.
const BATCHES: u64 = 50;
const VOTES: u64 = 10_000;

/// Far longer than counting a batch takes.
const PATIENCE: Duration = Duration::from_mins(3);

/// What was acknowledged, counted here.
#[derive(Default, PartialEq, Debug)]
struct Truth {
    bands: BTreeMap<String, u64>,
    minutes: BTreeMap<i64, u64>,
}

impl Truth {
    fn total(&self) -> u64 {
        self.bands.values().sum()
    }

    /// Casts a batch and notes its receipts.
    fn flood(&mut self, system: &System, batch: u64) {
        // Four bytes a character, 200 characters.
        let album = |n: u64| char::from_u32(0x1F300 + u32::try_from(n).unwrap()).unwrap().to_string().repeat(200);
        let band = |n: u64| format!("Band {}", n % 23);
        let numbers = batch * VOTES..(batch + 1) * VOTES;
        let votes = numbers.clone().map(|n| json!({ "name": band(n), "album": album(n % 7), "rank": n % 100 }));
        let votes = Value::Array(votes.collect());
        assert!(votes.to_string().len() > 8_000_000, "a batch of 8 MB at least");
        let (status, receipts) = system.post_batch(&votes);
        assert_eq!(status, 200);
        for (n, receipt) in numbers.zip(receipts.as_array().unwrap()) {
            let accepted_at: jiff::Timestamp = receipt["accepted_at"].as_str().unwrap().parse().unwrap();
            *self.bands.entry(band(n)).or_default() += 1;
            *self.minutes.entry(accepted_at.as_millisecond().div_euclid(60_000) * 60_000).or_default() += 1;
        }
    }

    /// What the results say.
    fn told(system: &System) -> Self {
        let bands = system.results("/v1/contests/bands/tally")["bands"].as_array().unwrap().clone();
        let minutes = system.results("/v1/rates?every=1m&last=3600s").as_array().unwrap().clone();
        Self {
            bands: bands
                .iter()
                .map(|band| (band["name"].as_str().unwrap().to_owned(), band["votes"].as_u64().unwrap()))
                .collect(),
            minutes: minutes
                .iter()
                .map(|minute| (minute["start"].as_i64().unwrap(), minute["votes"].as_u64().unwrap()))
                .collect(),
        }
    }
}

fn wait_until_counted(system: &System) {
    let begun = Instant::now();
    loop {
        let tally = system.results("/v1/contests/bands/tally");
        if tally["processed"] == tally["accepted"] {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "not counted after {PATIENCE:?}: {tally}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Floods a system and checks what it tells. `size` says what the log and the book take now.
fn flood(system: &System, size: impl Fn() -> [u64; 2]) -> Truth {
    let (mut truth, mut most) = (Truth::default(), [0, 0]);
    for batch in 0..BATCHES {
        truth.flood(system, batch);
        // What is not counted never leaves the log, however full it is.
        wait_until_counted(system);
        for (most, now) in most.iter_mut().zip(size()) {
            *most = (*most).max(now);
        }
    }
    assert_eq!(Truth::told(system), truth);
    println!("at most {} MB of log and {} MB of book", most[0] / 1_000_000, most[1] / 1_000_000);
    for (store, most) in ["the log", "the book"].into_iter().zip(most) {
        assert!(most < BOUND_BYTES, "{store} had {most} bytes");
    }
    truth
}

/// The audit knows all votes, and most of them by what they came to.
fn check(report: &Value, truth: &Truth) {
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!((number("book"), number("tallies")), (truth.total(), truth.total()), "{report}");
    assert_eq!(number("log") + number("expired") - number("duplicates"), truth.total(), "{report}");
    assert!(number("expired") > truth.total() / 2, "{report}");
}

#[test]
fn a_flow_larger_than_the_disk_is_counted_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--log-retention", BOUND, "--book-retention", BOUND];
    let mut system = System::start_with(&data, Addresses::free(), &flags);
    let length = |file: &str| fs::metadata(data.join(file)).unwrap().len();
    let truth = flood(&system, || [length("log.db"), length("count.db")]);
    check(&audit(&data), &truth);

    assert!(system.stop().0.success());
    check(&audit(&data), &truth);
    let wiped = run(&["replay", "tallies", "--data", data.to_str().unwrap()]);
    assert!(wiped.status.success(), "{wiped:?}");
    let system = System::start_with(&data, Addresses::free(), &flags);
    tests::wait_for("the tallies to come back", || Truth::told(&system) == truth);
    check(&audit(&data), &truth);
}

/// Bytes of the files of a folder, as its disk has them.
fn bytes_in(folder: &Path) -> u64 {
    let files: Vec<fs::DirEntry> = fs::read_dir(folder).map_or_else(|_| Vec::new(), |files| files.flatten().collect());
    // Kafka deletes files meanwhile.
    let bytes = |path: PathBuf| {
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        is_log.then(|| fs::metadata(path).ok()).flatten().map_or(0, |file| file.len())
    };
    files.into_iter().map(|file| bytes(file.path())).sum()
}

#[test]
fn a_flow_larger_than_the_disk_is_counted_exactly_on_servers() {
    let mut servers = Servers::fresh();
    servers.urls.queue += "?segment=1";
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec!["--log-retention", BOUND, "--book-retention", BOUND];
    flags.extend(servers.urls.flags());
    let system = System::start_with(&folder.path().join("data"), Addresses::free(), &flags);
    let kafka = std::env::var("OVATION_STACK_DIR").map_or_else(|_| stack::root().join("target/stack"), PathBuf::from);
    let log = || (0..12).map(|partition| bytes_in(&kafka.join(format!("kafka/{}-{partition}", servers.name)))).sum();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let book = runtime.block_on(mongodb::Client::with_uri_str(&servers.urls.book)).unwrap().database(&servers.name);
    let book = || {
        let stats = runtime.block_on(async { book.run_command(doc! { "dbStats": 1 }).await }).unwrap();
        stats.get_f64("dataSize").or_else(|_| stats.get_i64("dataSize").map(|bytes| bytes as f64)).unwrap() as u64
    };
    let truth = flood(&system, || [log(), book()]);
    assert!(log() > 0, "Kafka's files are in {}", kafka.display());
    check(&servers.audit(), &truth);

    // All keys of this system, as a Redis that lost its disk.
    let mut redis =
        redis::Client::open(servers.urls.tally.split('?').next().unwrap()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg(servers.key("*")).query(&mut redis).unwrap();
    assert_eq!(redis::cmd("DEL").arg(&keys).query(&mut redis), Ok(keys.len()));
    tests::wait_for("the tallies to come back", || Truth::told(&system) == truth);
    check(&servers.audit(), &truth);
}
