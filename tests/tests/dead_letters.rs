//! `ovation dead-letters` works on the data folder of the embedded stores as on Kafka.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use tests::{System, audit, run, wait_for};

/// Runs `ovation dead-letters` on a data folder. Returns its JSON, or its error.
fn dead_letters(action: &str, data: &Path) -> Result<Value, String> {
    let output = run(&["dead-letters", action, "--json", "--data", data.to_str().unwrap()]);
    if output.status.success() {
        return Ok(tests::json(&output));
    }
    Err(String::from_utf8(output.stderr).unwrap())
}

#[test]
fn dead_letters_of_the_embedded_stores_are_listed_and_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut system = System::start(&data);
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    system.wait_until_counted();
    let empty = json!({ "dead_letters": [], "foreign_records": 0 });
    assert_eq!(dead_letters("list", &data).unwrap(), empty);
    system.stop();

    // A record that is no vote, behind the vote; and a vote that an earlier version could not read.
    let log = Connection::open(data.join("log.db")).unwrap();
    let invalid = r#"INSERT INTO records SELECT partition, max("offset") + 1, accepted_at, 'bands|invalid', X'FFFF', NULL FROM records"#;
    assert_eq!(log.execute(invalid, []).unwrap(), 1);
    let earlier = "INSERT INTO dead_letters SELECT 11, 900, accepted_at, CAST('bands|another-ballot' AS BLOB), value, 'an earlier version'
        FROM records WHERE key <> 'bands|invalid'";
    assert_eq!(log.execute(earlier, []).unwrap(), 1);
    drop(log);

    let mut system = System::start(&data);
    system.wait_until_counted();
    // The system runs.
    let list = dead_letters("list", &data).unwrap();
    let letters = list["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 2, "{list}");
    let invalid = letters.iter().find(|letter| letter["key"] == "bands|invalid").unwrap();
    assert_eq!(
        (&invalid["value_bytes"], &invalid["truncated"], &invalid["offset"]),
        (&json!(2), &json!(false), &json!(1))
    );
    assert!(invalid["reason"].as_str().unwrap().contains("not a vote record"), "{invalid}");
    let text = run(&["dead-letters", "list", "--data", data.to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("2 bytes  not a vote record") && text.ends_with("2 dead letters\n"), "{text}");
    // Only one process may write.
    let refused = dead_letters("replay", &data).unwrap_err();
    assert!(refused.contains("has these stores open"), "{refused}");
    system.stop();

    for _ in 0..2 {
        let replayed = dead_letters("replay", &data).unwrap();
        assert_eq!(replayed, json!({ "replayed": 1, "unreadable": 1, "incomplete": 0, "foreign_records": 0 }));
    }
    let system = System::start(&data);
    wait_for("the replayed vote", || system.total("bands") == 2);
    system.wait_until_counted();
    let report = audit(&data);
    assert_eq!(
        (&report["ok"], &report["dead_letters"], &report["duplicates"]),
        (&json!(true), &json!(1), &json!(1)),
        "{report}"
    );
}
