//! Retention: the votes need more space than the retention allows. The log and the ledger stay below their limits, and
//! the tallies have every vote.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{Addresses, System, audit, run};

/// The number of votes of a batch. With 1 kB per vote, a batch needs 10 MB.
const VOTES: u64 = 10_000;

/// How much is cast, and how much may be retained.
struct Load {
    batches: u64,
    /// The maximum size of the log, and of the ledger.
    retention: &'static str,
    retention_bytes: u64,
}

/// All votes need 500 MB.
const EMBEDDED: Load = Load { batches: 50, retention: "64MB", retention_bytes: 64_000_000 };

/// The longest time until a batch is counted. Even a busy machine needs far less.
const COUNTING_TIMEOUT: Duration = Duration::from_mins(3);

/// The numbers of votes by band and by minute.
#[derive(Default, PartialEq, Debug)]
struct Counts {
    bands: BTreeMap<String, u64>,
    minutes: BTreeMap<i64, u64>,
}

impl Counts {
    fn total(&self) -> u64 {
        self.bands.values().sum()
    }

    /// Casts a batch, and adds its receipts to the counts.
    fn cast_batch(&mut self, system: &System, batch: u64) {
        // 200 characters with four bytes each.
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

    /// Reads the counts from the results.
    fn read(system: &System) -> Self {
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
        assert!(begun.elapsed() < COUNTING_TIMEOUT, "not counted after {COUNTING_TIMEOUT:?}: {tally}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Floods a system, and checks its counts. `size` returns the current bytes of the log and of the ledger.
fn flood(system: &System, load: &Load, size: impl Fn() -> [u64; 2]) -> Counts {
    let (mut expected, mut max) = (Counts::default(), [0, 0]);
    for batch in 0..load.batches {
        expected.cast_batch(system, batch);
        // Uncounted votes never expire, so the size is measured when the batch is counted.
        wait_until_counted(system);
        for (max, now) in max.iter_mut().zip(size()) {
            *max = (*max).max(now);
        }
    }
    assert_eq!(Counts::read(system), expected);
    println!("at most {} MB of log and {} MB of ledger", max[0] / 1_000_000, max[1] / 1_000_000);
    for (store, max) in ["the log", "the ledger"].into_iter().zip(max) {
        assert!(max < load.retention_bytes, "{store} had {max} bytes");
    }
    expected
}

/// Checks that the audit has all votes, and that more than half of them have expired.
fn check_audit(report: &Value, expected: &Counts) {
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!((number("ledger"), number("tallies")), (expected.total(), expected.total()), "{report}");
    assert_eq!(number("log") + number("expired") - number("duplicates"), expected.total(), "{report}");
    assert!(number("expired") > expected.total() / 2, "{report}");
}

#[test]
fn more_votes_than_the_retention_holds_are_counted_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--vote-log-retention", EMBEDDED.retention, "--ledger-retention", EMBEDDED.retention];
    let mut system = System::start_with(&data, Addresses::free(), &flags);
    let length = |file: &str| fs::metadata(data.join(file)).unwrap().len();
    let expected = flood(&system, &EMBEDDED, || [length("log.db"), length("count.db")]);
    check_audit(&audit(&data), &expected);

    assert!(system.stop().0.success());
    check_audit(&audit(&data), &expected);
    let cleared = run(&["replay", "tallies", "--data", data.to_str().unwrap()]);
    assert!(cleared.status.success(), "{cleared:?}");
    let system = System::start_with(&data, Addresses::free(), &flags);
    tests::wait_for("the tallies to be restored", || Counts::read(&system) == expected);
    check_audit(&audit(&data), &expected);
}

/// The same test on servers.
#[cfg(feature = "servers")]
mod on_servers {
    use std::path::{Path, PathBuf};

    use mongodb::bson::doc;
    use tests::{Servers, stack};

    use super::*;

    /// All votes need 250 MB. The servers of the tests take several times as long for a vote as the embedded stores.
    const ON_SERVERS: Load = Load { batches: 25, retention: "64MB", retention_bytes: 64_000_000 };

    /// Returns the total size of the log files in a folder.
    fn bytes_in(folder: &Path) -> u64 {
        let files: Vec<fs::DirEntry> =
            fs::read_dir(folder).map_or_else(|_| Vec::new(), |files| files.flatten().collect());
        // Kafka may delete a file before its size is read.
        let bytes = |path: PathBuf| {
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            is_log.then(|| fs::metadata(path).ok()).flatten().map_or(0, |file| file.len())
        };
        files.into_iter().map(|file| bytes(file.path())).sum()
    }

    #[test]
    fn more_votes_than_the_retention_holds_are_counted_exactly_on_servers() {
        let mut servers = Servers::fresh();
        servers.urls.vote_log += "?segment=1";
        let folder = tempfile::tempdir().unwrap();
        let retention = ON_SERVERS.retention;
        let mut flags = vec!["--vote-log-retention", retention, "--ledger-retention", retention];
        flags.extend(servers.urls.flags());
        let system = System::start_with(&folder.path().join("data"), Addresses::free(), &flags);
        let kafka =
            std::env::var("OVATION_STACK_DIR").map_or_else(|_| stack::root().join("target/stack"), PathBuf::from);
        let log =
            || (0..12).map(|partition| bytes_in(&kafka.join(format!("kafka/{}-{partition}", servers.name)))).sum();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ledger =
            runtime.block_on(mongodb::Client::with_uri_str(&servers.urls.ledger)).unwrap().database(&servers.name);
        let ledger = || {
            let stats = runtime.block_on(async { ledger.run_command(doc! { "dbStats": 1 }).await }).unwrap();
            stats.get_f64("dataSize").or_else(|_| stats.get_i64("dataSize").map(|bytes| bytes as f64)).unwrap() as u64
        };
        let expected = flood(&system, &ON_SERVERS, || [log(), ledger()]);
        assert!(log() > 0, "Kafka has no files in {}", kafka.display());
        check_audit(&servers.audit(), &expected);

        // All keys of this system are deleted, as if Redis lost its disk.
        let mut redis =
            redis::Client::open(servers.urls.tallies.split('?').next().unwrap()).unwrap().get_connection().unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg(servers.key("*")).query(&mut redis).unwrap();
        assert_eq!(redis::cmd("DEL").arg(&keys).query(&mut redis), Ok(keys.len()));
        tests::wait_for("the tallies to be restored", || Counts::read(&system) == expected);
        check_audit(&servers.audit(), &expected);
    }
}
