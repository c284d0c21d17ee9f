//! The program is killed many times during a flood. Every acknowledged vote is durable and counted exactly once.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    fs,
    process::Child,
    time::{Duration, Instant},
};

use rand::RngExt;
use rusqlite::Connection;
use tests::{Addresses, System, audit, json, start};

/// The number of kills.
const KILLS: usize = 25;

#[test]
fn an_acknowledged_vote_survives_25_kills_and_is_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let addresses = Addresses::free();
    let mut system = System::start_with(&data, addresses, &[]);

    let receipts = |producer: &str| folder.path().join(format!("{producer}.receipts"));
    let flood = |producer: &str, url: String| -> Child {
        let receipts = receipts(producer);
        start(&[
            "flood",
            "--json",
            "--protocol",
            producer,
            "--url",
            &url,
            "--rate",
            "400",
            "--for",
            "75s",
            "--connections",
            "4",
            "--retry-for",
            "60s",
            "--timeout",
            "2s",
            "--receipts",
            receipts.to_str().unwrap(),
        ])
    };
    let floods =
        [flood("rest", format!("http://{}", addresses.rest)), flood("grpc", format!("http://{}", addresses.grpc))];

    let begun = Instant::now();
    let mut random = rand::rng();
    for kill in 1..=KILLS {
        // The system is killed at a random moment of the flood.
        std::thread::sleep(Duration::from_millis(random.random_range(200..4_000)));
        system.kill();
        system = System::start_with(&data, addresses, &[]);
        println!("killed {kill} times after {:?}", begun.elapsed());
    }
    let mut sent = 0;
    for flood in floods {
        let report = json(&flood.wait_with_output().unwrap());
        println!("{report}");
        assert_eq!(
            report["sent"], report["acknowledged"],
            "not every vote was acknowledged despite the retries: {report}"
        );
        sent += report["sent"].as_u64().unwrap();
    }
    system.wait_until_counted();

    let acknowledged: HashSet<String> = ["rest", "grpc"]
        .iter()
        .flat_map(|producer| {
            fs::read_to_string(receipts(producer)).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(acknowledged.len() as u64, sent, "one receipt per vote");
    assert_eq!(system.total("bands"), sent, "every vote is counted once");

    let report = audit(&data);
    assert!(report["ok"].as_bool().unwrap(), "{report}");
    let (status, _) = system.stop();
    assert!(status.success());

    // The test also reads the files itself: each acknowledged vote is on the log, and in the ledger exactly once.
    let ids = |file: &str, sql: &str| -> Vec<String> {
        let db = Connection::open(data.join(file)).unwrap();
        let mut query = db.prepare(sql).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let logged: HashSet<String> = ids("log.db", "SELECT DISTINCT substr(key, 7) FROM records").into_iter().collect();
    let recorded = ids("count.db", "SELECT substr(key, 7) FROM votes");
    let counted: HashSet<String> = recorded.iter().cloned().collect();
    assert_eq!(counted.len(), recorded.len(), "a vote is in the ledger twice");
    assert!(acknowledged.is_subset(&logged), "an acknowledged vote is missing on the log");
    assert!(acknowledged.is_subset(&counted), "an acknowledged vote is missing in the ledger");
    assert_eq!(counted, logged, "the ledger differs from the log");
}
