//! The system shuts down on SIGTERM: in time, and without losing an acknowledged vote.
#![allow(clippy::unwrap_used)]

use std::{collections::HashSet, fs, time::Duration};

use rusqlite::Connection;
use tests::{System, audit, json, start, wait_for};

#[test]
fn sigterm_during_a_flood_loses_no_acknowledged_vote() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut system = System::start(&data);
    let floods: Vec<_> = [("rest", system.addresses.rest), ("grpc", system.addresses.grpc)]
        .into_iter()
        .map(|(producer, address)| {
            let receipts = folder.path().join(producer);
            let flood = start(&[
                "flood",
                "--json",
                "--protocol",
                producer,
                "--url",
                &format!("http://{address}"),
                "--rate",
                "500",
                "--for",
                "8s",
                "--receipts",
                receipts.to_str().unwrap(),
            ]);
            (flood, receipts)
        })
        .collect();
    wait_for("some votes of the flood", || system.total("bands") > 500);

    let (status, took) = system.stop();
    assert!(status.success(), "the system ended with {status}");
    assert!(took < Duration::from_secs(10), "the shutdown took {took:?}");

    let mut acknowledged = HashSet::new();
    for (flood, receipts) in floods {
        let report = json(&flood.wait_with_output().unwrap());
        let lines: Vec<String> = fs::read_to_string(receipts).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(report["acknowledged"].as_u64().unwrap(), lines.len() as u64, "{report}");
        acknowledged.extend(lines);
    }
    let db = Connection::open(data.join("count.db")).unwrap();
    let mut query = db.prepare("SELECT substr(key, 7) FROM votes").unwrap();
    let recorded: HashSet<String> = query.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(acknowledged.len() > 500);
    assert!(acknowledged.is_subset(&recorded), "an acknowledged vote was not counted before the shutdown");
    let report = audit(&data);
    assert_eq!(report["uncounted"], 0, "{report}");
    assert!(report["ok"].as_bool().unwrap(), "{report}");
}
