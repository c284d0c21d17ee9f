//! Files are imported: every row is loaded once, also if the system is killed, and every bad row is reported.
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    fs,
    io::{BufWriter, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tests::{Addresses, System, command, json, wait_for};

fn start(folder: &Path, flags: &[&str]) -> System {
    System::start_with(&folder.join("data"), Addresses::free(), flags)
}

fn url(system: &System) -> String {
    format!("http://{}", system.addresses.results)
}

fn get(system: &System, path: &str) -> Value {
    ureq::get(format!("{}{path}", url(system))).call().unwrap().body_mut().read_json().unwrap()
}

/// Returns the command that imports a file.
fn import(system: &System, file: &Path, flags: &[&str]) -> Command {
    let mut command = command();
    command.arg("import").arg(file).args(["--url", &url(system)]).args(flags);
    command
}

/// Writes a CSV file. Each row has another price.
fn write_ballots(path: &Path, rows: u32) {
    let mut text = "\u{FEFF}Name,price,\"a note, of the night\"\r\n".to_owned();
    for n in 0..rows {
        write!(text, "Band {},{n},\"row {n},\r\n\"\"quoted\"\"\"\r\n", n % 7).unwrap();
    }
    fs::write(path, text).unwrap();
}

/// Returns the prices of all rows of a dataset, which identify the rows.
fn prices(system: &System, dataset: &str) -> Vec<u32> {
    let url = format!("{}/v1/datasets/{dataset}?fields=price&format=ndjson&allow_scan=true", url(system));
    let text = ureq::get(&url).call().unwrap().body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
    let price = |line: &str| serde_json::from_str::<Value>(line).unwrap()["price"].as_str().unwrap().parse().unwrap();
    text.lines().map(price).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Imports files into the stores of a system, and checks the datasets, the votes and the errors.
fn files_become_datasets_and_votes(folder: &Path, system: &System) {
    let file = folder.join("Ballots 2026.csv");
    write_ballots(&file, 5_000);
    let done = import(system, &file, &["--json"]).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    let done = json(&done);
    assert_eq!((&done["dataset"], &done["loaded"], &done["bad"]), (&"ballots-2026".into(), &5_000.into(), &0.into()));
    assert!(prices(system, "ballots-2026").into_iter().eq(0..5_000), "the rows are in the order of the file");
    let found = get(system, "/v1/datasets/ballots-2026?price=gte:4998&NAME=like:band");
    assert_eq!(found["rows"][1]["a note, of the night"], "row 4999,\r\n\"quoted\"");
    let details = get(system, &format!("/v1/imports/{}", done["import"].as_str().unwrap()));
    assert_eq!((&details["state"], &details["chunks_done"]), (&"done".into(), &details["chunks"]));

    // The name is in use now.
    let again = import(system, &file, &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("if_exists=replace"), "{}", text(&again));
    let numbered = json(&import(system, &file, &["--if-exists", "number", "--json"]).output().unwrap());
    assert_eq!(numbered["dataset"], "ballots-2026-2");
    write_ballots(&file, 10);
    assert!(import(system, &file, &["--if-exists", "replace"]).output().unwrap().status.success());
    assert_eq!(prices(system, "ballots-2026").len(), 10);
    ureq::delete(format!("{}/v1/datasets/ballots-2026-2", url(system))).call().unwrap();
    assert_eq!(get(system, "/v1/datasets")["datasets"].as_array().unwrap().len(), 1);

    let bad = folder.join("bad.csv");
    fs::write(&bad, "name,year\nQueen,1975\nAbba\n\"two\nlines\",1\nlast,2\n").unwrap();
    let output = import(system, &bad, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let problem = "line 3: wrong number of cells: expected 2, found 1";
    assert!(text(&output).contains(problem), "{}", text(&output));
    assert_eq!(get(system, "/v1/datasets/bad")["rows"].as_array().unwrap().len(), 3);

    let latin = folder.join("latin.csv");
    fs::write(&latin, b"name\nMot\xF6rhead\n").unwrap();
    let output = import(system, &latin, &[]).output().unwrap();
    assert!(text(&output).contains("line 2 is not in UTF-8") && text(&output).contains("iconv"), "{}", text(&output));
    assert_eq!(
        get(system, "/v1/datasets")["datasets"].as_array().unwrap().len(),
        2,
        "a rejected file creates no dataset"
    );

    let votes = folder.join("paper.csv");
    let rows = (0..3_000).map(|n| format!("Band {},{}\n", n % 7, 1970 + n % 50));
    fs::write(&votes, format!("Name,Year\n{}Queen,never\n,1975\n", rows.collect::<String>())).unwrap();
    for _ in 0..2 {
        // After the second import, the counts are the same.
        let output = import(system, &votes, &["--as", "votes"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = text(&output);
        assert!(text.contains("3,000 of 3,002 rows are votes for bands"), "{text}");
        assert!(text.contains("line 3002: year: must be a number"), "{text}");
        assert!(text.contains("line 3003: name: "), "{text}");
        system.wait_until_counted();
        let tally = get(system, "/v1/contests/bands/tally");
        assert_eq!((&tally["total"], &tally["producers"]["import"]), (&3_000.into(), &3_000.into()));
    }
}

#[test]
fn files_are_imported_into_embedded_stores() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = start(folder.path(), &[]);
    files_become_datasets_and_votes(folder.path(), &system);
    assert!(system.stop().0.success());
    let audit = command().args(["audit", "--data"]).arg(folder.path().join("data")).output().unwrap();
    assert!(audit.status.success(), "{}", text(&audit));
}

/// The number of rows in the file of the tests that kill the system.
const ROWS: u32 = 120_000;

/// Kills the system three times during an import, and checks that every row is loaded once in the end.
fn load_and_kill(folder: &Path, flags: &[&str]) -> System {
    let file = folder.join("large.csv");
    write_ballots(&file, ROWS);
    let mut system = start(folder, flags);
    let accepted = upload(&system, &file);
    let path = format!("/v1/imports/{}", accepted["import"].as_str().unwrap());
    let mut loaded = 0;
    for _ in 0..3 {
        wait_for("some more rows to be loaded", || {
            let now = get(&system, "/v1/datasets")["datasets"][0]["rows"].as_u64().unwrap();
            now > loaded && {
                loaded = now;
                true
            }
        });
        system.kill();
        system = start(folder, flags);
    }
    wait_for("the import to be done", || get(&system, &path)["state"] == "done");
    assert_eq!(get(&system, &path)["loaded"], ROWS);
    // The key of a row is the row's number in the file. If the number of rows is right, each row was loaded once.
    assert_eq!(get(&system, "/v1/datasets")["datasets"][0]["rows"], ROWS);
    system
}

/// Uploads a file as curl does.
fn upload(system: &System, file: &Path) -> Value {
    let boundary = "of-a-test";
    let head = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"large.csv\"\r\n\r\n");
    let body = [head.as_bytes(), &fs::read(file).unwrap(), format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
    let sent = ureq::post(format!("{}/v1/datasets", url(system)))
        .header("content-type", format!("multipart/form-data; boundary={boundary}"))
        .send(&body[..]);
    let mut response = sent.unwrap();
    assert_eq!(response.status(), 202);
    response.body_mut().read_json().unwrap()
}

#[test]
fn an_import_into_embedded_stores_survives_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = load_and_kill(folder.path(), &[]);
    assert!(prices(&system, "large").into_iter().eq(0..ROWS), "the rows are in the order of the file");
    assert!(system.stop().0.success());
}

/// Returns the peak memory of a process, in MiB.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib / 1_024)
}

/// The file is larger than the memory that the processes may use. `bench/import memory` does the same with 2 GB.
#[test]
fn an_import_needs_less_memory_than_the_size_of_its_file() {
    const MAX_MEMORY_MIB: u64 = 300;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wide.csv");
    let row = format!("\"{}\",x\n", "wide, \"\"\u{e4}\"\"\n".repeat(1_000));
    let mut text = BufWriter::new(fs::File::create(&file).unwrap());
    text.write_all(b"text,x\n").unwrap();
    for _ in 0..26_000 {
        text.write_all(row.as_bytes()).unwrap();
    }
    text.into_inner().unwrap().sync_all().unwrap();
    assert!(fs::metadata(&file).unwrap().len() > MAX_MEMORY_MIB << 20);
    let mut system = start(folder.path(), &[]);
    let mut importing = import(&system, &file, &[]).stdout(Stdio::null()).spawn().unwrap();
    let mut max = 0;
    wait_for("the file to be imported", || {
        max = max.max(peak_memory(importing.id()).unwrap_or_default());
        importing.try_wait().unwrap().is_some_and(|status| status.success())
    });
    assert!(max > 0 && max < MAX_MEMORY_MIB, "ovation import has {max} MiB");
    let max = peak_memory(system.pid().unsigned_abs()).unwrap();
    assert!(max < MAX_MEMORY_MIB, "the service has {max} MiB");
    assert!(system.stop().0.success());
}

/// The same tests on servers.
#[cfg(feature = "servers")]
mod on_servers {
    use tests::Servers;

    use super::*;

    #[test]
    fn files_are_imported_into_servers() {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::fresh();
        let mut system = start(folder.path(), &servers.urls.flags());
        files_become_datasets_and_votes(folder.path(), &system);
        assert!(system.stop().0.success());
    }

    /// Uses an S3 server.
    #[test]
    fn files_are_stored_in_a_bucket() {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::fresh();
        let bucket =
            std::env::var("OVATION_OBJECTS").expect("no S3: run `dev/stack up --s3 && export $(dev/stack env)`");
        assert!(bucket.starts_with("s3://"), "{bucket}");
        let objects = format!("{bucket}/{}", servers.name);
        let flags = [&servers.urls.flags()[..], &["--objects", &objects]].concat();
        let mut system = start(folder.path(), &flags);
        files_become_datasets_and_votes(folder.path(), &system);
        assert!(!folder.path().join("data/objects").exists());
        assert!(system.stop().0.success());
    }

    #[test]
    fn an_import_survives_kills_on_servers() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load_and_kill(folder.path(), &Servers::fresh().urls.flags()).stop().0.success());
    }
}
