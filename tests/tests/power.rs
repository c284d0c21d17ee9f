//! After a power loss, no acknowledged vote is missing: a vote is acknowledged only after it is on the disk.
//!
//! The program runs under `strace`. For each response with the id of a vote, the trace must show, in this order: a
//! write to the log with that id, a successful fsync of the log that began after the write, and the response.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use serde_json::json;
use tests::{Addresses, System, program};
use uuid::Uuid;

#[test]
fn every_acknowledgement_follows_an_fsync_of_its_vote() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, ids) = traced_votes(folder.path());

    assert_eq!(unsynced(&trace, &ids), Vec::<&str>::new());

    // Tests the check itself. It must report every vote in a trace without the fsyncs (as with a lower `synchronous` of
    // SQLite), and in a trace with all fsyncs before the writes.
    let is_sync = |line: &&str| line.contains("sync(");
    let without: Vec<&str> = trace.lines().filter(|line| !is_sync(line)).collect();
    assert_eq!(unsynced(&without.join("\n"), &ids).len(), ids.len());
    let (early, late): (Vec<_>, Vec<_>) = trace.lines().partition(is_sync);
    assert_eq!(unsynced(&[early, late].concat().join("\n"), &ids).len(), ids.len());
}

/// Casts votes over REST, one by one and in a batch. Returns the trace and the ids of the votes.
fn traced_votes(folder: &Path) -> (String, Vec<String>) {
    let trace = folder.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "70000", "-e", "trace=pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync"]);
    strace.arg("-o").arg(&trace).arg(program());
    let mut system = System::spawn(strace, &folder.join("data"), Addresses::free(), &[]);
    system.wait_until_ready();

    let ids: Vec<String> = (0..40).map(|_| Uuid::now_v7().to_string()).collect();
    let vote = |id: &String| json!({ "name": "Pink Floyd", "vote_id": id });
    let (singles, batch) = ids.split_at(20);
    for id in singles {
        let (status, receipt) = system.post(&vote(id));
        assert_eq!((status, receipt["vote_id"].as_str().unwrap()), (202, id.as_str()));
    }
    let (status, receipts) = system.post_batch(&batch.iter().map(vote).collect());
    assert_eq!((status, receipts.as_array().unwrap().len()), (200, 20));
    // The signal goes to the program, which is the child of strace.
    let program = Command::new("pgrep").args(["-P", &system.pid().to_string()]).output().unwrap();
    let pid = String::from_utf8(program.stdout).unwrap();
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    assert!(system.wait().success());
    (fs::read_to_string(trace).unwrap(), ids)
}

/// Returns the ids whose response was not sent after a write and an fsync of the log.
fn unsynced<'a>(trace: &str, ids: &'a [String]) -> Vec<&'a str> {
    let calls = parse_calls(trace);
    let find = |condition: &dyn Fn(&Call) -> bool| calls.iter().find(|call| condition(call));
    let is_synced = |id: &str| {
        let write = find(&|call| call.is_on_log() && call.writes(id));
        let sync = write.and_then(|write| find(&|call| call.first_line > write.last_line && call.is_sync_of_log()));
        let response = find(&|call| call.is_on_socket() && call.writes(id));
        sync.zip(response).is_some_and(|(sync, response)| sync.last_line < response.first_line)
    };
    ids.iter().map(String::as_str).filter(|id| !is_synced(id)).collect()
}

/// A system call, with the lines of the trace where the call begins and ends.
struct Call {
    first_line: usize,
    last_line: usize,
    text: String,
}

impl Call {
    fn is_on_log(&self) -> bool {
        self.text.starts_with("pwrite64(") && self.text.contains("log.db-wal>")
    }

    fn is_sync_of_log(&self) -> bool {
        (self.text.starts_with("fdatasync(") || self.text.starts_with("fsync("))
            && self.text.contains("log.db-wal>")
            && self.text.ends_with("= 0")
    }

    fn is_on_socket(&self) -> bool {
        self.text.contains("<TCP:") || self.text.contains("<socket:")
    }

    fn writes(&self, id: &str) -> bool {
        self.text.contains(id)
    }
}

/// Parses the calls of a trace. Joins the two parts of an interleaved call: `... <unfinished ...>` and
/// `<... name resumed>...`.
fn parse_calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: Vec<(&str, usize)> = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(text) = text.strip_suffix(" <unfinished ...>") {
            unfinished.push((thread, calls.len()));
            calls.push(Call { first_line: number, last_line: usize::MAX, text: text.to_owned() });
        } else if text.starts_with("<... ") {
            let Some(index) = unfinished.iter().position(|(other, _)| *other == thread) else { continue };
            let call = &mut calls[unfinished.swap_remove(index).1];
            call.last_line = number;
            call.text.push_str(text);
        } else {
            calls.push(Call { first_line: number, last_line: number, text: text.to_owned() });
        }
    }
    calls
}
