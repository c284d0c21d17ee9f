//! The audit finds alterations of the log, the ledger and the tallies, and names the altered votes.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use tests::{System, audit, run, wait_for};
use uuid::Uuid;

/// Returns the data of a stopped system with 30 votes for three bands. Two of the votes were sent twice.
fn data_with_votes() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut system = System::start(&data);
    let ids: Vec<Uuid> = (0..30).map(|_| Uuid::now_v7()).collect();
    let vote = |n: usize| {
        let name = ["Pink Floyd", "Sigur Rós", "東京事変"][n % 3];
        json!({ "name": name, "album": format!("Album {n}"), "vote_id": ids[n] })
    };
    let (status, _) = system.post_batch(&(0..30).chain([4, 9]).map(vote).collect());
    assert_eq!(status, 200);
    system.wait_until_counted();
    let (status, _) = system.stop();
    assert!(status.success());
    (folder, data)
}

/// Alters the rows of a file with a statement.
fn alter(data: &Path, file: &str, sql: &str) {
    let changed = Connection::open(data.join(file)).unwrap().execute(sql, []).unwrap();
    assert!(changed > 0, "the alteration changed no row");
}

/// Returns the differences that the audit finds after an alteration, as one text.
fn differences(file: &str, sql: &str) -> String {
    let (_folder, data) = data_with_votes();
    alter(&data, file, sql);
    let report = audit(&data);
    assert_eq!(report["ok"], false, "after {sql}: {report}");
    let differences = report["differences"].as_array().unwrap().iter().map(|difference| difference.as_str().unwrap());
    let differences = differences.collect::<Vec<_>>().join("\n");
    println!("{sql}\n{differences}\n");
    differences
}

#[test]
fn an_unaltered_system_has_no_difference() {
    let (_folder, data) = data_with_votes();
    let report = audit(&data);
    let expected = json!({
        "ok": true, "log": 32, "dead_letters": 0, "foreign_records": 0, "duplicates": 2, "ledger": 30, "tallies": 30,
        "uncounted": 0, "expired": 0, "unseen": 0, "youngest_expired_seconds": null, "differences": []
    });
    assert_eq!(report, expected);
}

#[test]
fn a_vote_deleted_from_the_log_is_named() {
    let found = differences("log.db", r#"DELETE FROM records WHERE "offset" = 0"#);
    assert!(found.contains("which the log does not have there"), "{found}");
}

#[test]
fn a_vote_forged_on_the_log_is_named() {
    // The forged record is below the position of the tallies.
    let sql = r#"INSERT OR REPLACE INTO records SELECT partition, "offset", accepted_at, key || 'x', value, NULL FROM records LIMIT 1"#;
    assert!(differences("log.db", sql).contains("is not in the ledger"));
}

#[test]
fn a_vote_altered_in_the_ledger_is_named() {
    let found = differences("count.db", "UPDATE votes SET name = 'Bribed' WHERE name = 'Sigur Rós'");
    assert!(found.contains("\"Sigur Rós\" on the log") && found.contains("\"Bribed\" in the ledger"), "{found}");
}

#[test]
fn a_time_altered_in_the_ledger_is_named() {
    assert!(
        differences("count.db", "UPDATE votes SET accepted_at = accepted_at - 1").contains("differs in another field")
    );
}

#[test]
fn a_vote_deleted_from_the_ledger_is_named() {
    let found = differences("count.db", "DELETE FROM votes WHERE name = '東京事変'");
    assert!(found.contains("the ledger has the ballot of vote"), "{found}");
}

#[test]
fn a_ballot_deleted_from_the_ledger_is_named() {
    assert!(differences("count.db", "DELETE FROM ballots").contains("its ballot key is missing"));
}

#[test]
fn a_raised_tally_is_named() {
    let found = differences("count.db", "UPDATE bands SET votes = votes + 1 WHERE name = 'Pink Floyd'");
    assert!(found.contains("band \"Pink Floyd\": 10 votes on the log, 11 in the tallies"), "{found}");
}

#[test]
fn a_band_invented_in_the_tallies_is_named() {
    let found = differences("count.db", "INSERT INTO bands VALUES ('bands', 'Stranger', 5)");
    assert!(found.contains("band \"Stranger\": 0 votes on the log, 5 in the tallies"), "{found}");
}

#[test]
fn altered_albums_producers_and_windows_are_named() {
    assert!(differences("count.db", "UPDATE albums SET votes = 0 WHERE album = 'Album 3'").contains("Album 3"));
    assert!(differences("count.db", "UPDATE producers SET votes = votes - 1").contains("producer Rest"));
    assert!(differences("count.db", "UPDATE windows SET votes = votes + 1 WHERE size = 60000").contains("1m from"));
}

#[test]
fn a_position_beyond_the_log_is_named() {
    let found = differences("count.db", r#"UPDATE positions SET "offset" = "offset" + 5"#);
    assert!(found.contains("but the log ends at"), "{found}");
}

#[test]
fn an_invalid_record_becomes_a_dead_letter_and_counting_continues() {
    let (_folder, data) = data_with_votes();
    let sql = r#"INSERT INTO records SELECT partition, max("offset") + 1, accepted_at, 'bands|invalid record', X'FFFF', NULL
        FROM records WHERE partition = (SELECT min(partition) FROM records)"#;
    alter(&data, "log.db", sql);
    let system = System::start(&data);
    system.wait_until_counted();
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    wait_for("the vote after the invalid record", || system.total("bands") == 31);
    let report = audit(&data);
    assert_eq!(
        (&report["ok"], &report["dead_letters"], &report["log"]),
        (&json!(true), &json!(1), &json!(34)),
        "{report}"
    );
}

#[test]
fn the_audit_works_while_the_system_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let system = System::start_with(&data, tests::Addresses::free(), &["--demo", "300"]);
    wait_for("some votes", || system.total("bands") > 200);
    for _ in 0..3 {
        let report = audit(&data);
        assert!(report["ok"].as_bool().unwrap(), "{report}");
        assert!(report["log"].as_u64().unwrap() > 200);
    }
}

#[test]
fn a_folder_without_stores_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["audit", "--json", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("there are no Ovation stores in this folder"), "{error}");
    assert_eq!(output.stdout, b"", "there is no report");
}
