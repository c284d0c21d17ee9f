//! The folder of the embedded stores has one writer at a time. A damaged folder is refused, and not initialised again.
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;
use tests::{Addresses, System, audit, command, wait_for};

/// Returns the data of a stopped system with 2,000 votes.
fn data_with_votes() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut system = System::start(&data);
    let votes: Vec<_> = (0..2_000).map(|n| json!({ "name": format!("Band {}", n % 90) })).collect();
    assert_eq!(system.post_batch(&json!(votes)).0, 200);
    system.wait_until_counted();
    system.stop();
    (folder, data)
}

/// Starts a system on the folder. The start must fail. Returns the error.
fn refused(data: &Path) -> String {
    let Addresses { rest, grpc, results, results_grpc, admin } = Addresses::free();
    let mut up = command();
    up.arg("up").arg("--data").arg(data).args(["--rest", &rest.to_string(), "--grpc", &grpc.to_string()]);
    up.args(["--results", &results.to_string(), "--results-grpc", &results_grpc.to_string()]);
    up.args(["--admin", &admin.to_string()]).stdin(Stdio::null());
    let Output { status, stderr, .. } = up.output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{error}");
    println!("{error}");
    error
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let system = System::start(&data);
    let error = refused(&data);
    assert!(error.contains(&format!("process {} has these stores open", system.pid())), "{error}");
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    system.wait_until_counted();
    assert!(audit(&data)["ok"].as_bool().unwrap());
}

#[test]
fn a_foreign_file_is_refused() {
    let (_folder, data) = data_with_votes();
    fs::write(data.join("log.db"), "this is no database, and long enough to be read as one".repeat(100)).unwrap();
    assert!(refused(&data).contains("log.db"));
    let (_folder, data) = data_with_votes();
    fs::copy(data.join("count.db"), data.join("log.db")).unwrap();
    assert!(refused(&data).contains("not an Ovation store of this kind"));
}

#[test]
fn a_truncated_file_is_refused() {
    for file in ["log.db", "count.db"] {
        for length in [0, 5_000, 100_000] {
            let (_folder, data) = data_with_votes();
            File::options().write(true).open(data.join(file)).unwrap().set_len(length).unwrap();
            assert!(refused(&data).contains(file), "{file} truncated to {length} bytes");
        }
    }
}

#[test]
fn a_damaged_page_is_refused_and_found_by_the_audit() {
    let (_folder, data) = data_with_votes();
    let mut log = File::options().write(true).open(data.join("log.db")).unwrap();
    log.seek(SeekFrom::Start(8 * 4_096)).unwrap();
    log.write_all(&[0x5A; 4_096]).unwrap();
    assert!(refused(&data).contains("log.db"));
    let output = tests::run(&["audit", "--data", data.to_str().unwrap()]);
    assert!(!output.status.success());
}

#[test]
fn a_missing_log_is_not_created_again() {
    let (_folder, data) = data_with_votes();
    fs::remove_file(data.join("log.db")).unwrap();
    assert!(refused(&data).contains("log.db is missing although count.db exists"));
}

#[test]
fn a_missing_secret_is_not_created_again() {
    let (_folder, data) = data_with_votes();
    fs::remove_file(data.join("secret")).unwrap();
    assert!(refused(&data).contains("the voters' secret can't be read"));
}

#[test]
fn lost_counts_are_restored_from_the_log() {
    let (_folder, data) = data_with_votes();
    fs::remove_file(data.join("count.db")).unwrap();
    let system = System::start(&data);
    wait_for("all votes to be counted again", || system.total("bands") == 2_000);
    assert!(audit(&data)["ok"].as_bool().unwrap());
}

#[test]
fn another_log_is_recognised_and_not_counted() {
    let (_one, data) = data_with_votes();
    let (_other, other) = data_with_votes();
    fs::copy(other.join("log.db"), data.join("log.db")).unwrap();
    let system = System::start(&data);
    let health = format!("http://{}/health", system.addresses.admin);
    wait_for("the health to be degraded", || tests::get(&health)["status"] == "degraded");
    let health = tests::get(&health).to_string();
    assert!(health.contains("this is not the log that was counted"), "{health}");
    assert_eq!(system.total("bands"), 2_000, "a vote of the other log was counted");
    assert_eq!(audit(&data)["ok"], false);
}
