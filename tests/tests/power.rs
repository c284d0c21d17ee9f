//! Power loss: an acknowledgement leaves the process only after the disk has its vote.
//!
//! The program runs under `strace`. For each answer that carries a vote's id, the trace must show, in this order: a write
//! to the log with that id, an fsync of the log that began after the write and succeeded, and then the answer.
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

    // The check itself finds what it is there to find: with the fsyncs gone, as with `synchronous` turned down, or with each
    // of them before its write, no vote is safe.
    let is_sync = |line: &&str| line.contains("sync(");
    let without: Vec<&str> = trace.lines().filter(|line| !is_sync(line)).collect();
    assert_eq!(unsynced(&without.join("\n"), &ids).len(), ids.len());
    let (early, late): (Vec<_>, Vec<_>) = trace.lines().partition(is_sync);
    assert_eq!(unsynced(&[early, late].concat().join("\n"), &ids).len(), ids.len());
}

/// Casts votes one by one and in a batch over REST, and returns the trace and the votes' ids.
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
        let (status, answer) = system.post(&vote(id));
        assert_eq!((status, answer["vote_id"].as_str().unwrap()), (202, id.as_str()));
    }
    let (status, answer) = system.post_batch(&batch.iter().map(vote).collect());
    assert_eq!((status, answer.as_array().unwrap().len()), (200, 20));
    // strace passes the signal on by ending its child.
    let program = Command::new("pgrep").args(["-P", &system.pid().to_string()]).output().unwrap();
    let pid = String::from_utf8(program.stdout).unwrap();
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap().success());
    assert!(system.wait().success());
    (fs::read_to_string(trace).unwrap(), ids)
}

/// The ids whose answer was sent before the log's fsync.
fn unsynced<'a>(trace: &str, ids: &'a [String]) -> Vec<&'a str> {
    let calls = calls(trace);
    let is_safe = |id: &str| {
        let written = calls.iter().position(|call| call.is_on_log() && call.writes(id))?;
        let synced = calls.iter().position(|call| call.begun > calls[written].ended && call.is_sync_of_log())?;
        let answered = calls.iter().position(|call| call.is_on_socket() && call.writes(id))?;
        (calls[synced].ended < calls[answered].begun).then_some(())
    };
    ids.iter().map(String::as_str).filter(|id| is_safe(id).is_none()).collect()
}

/// A system call: the lines of the trace where it began and ended, and what it was.
struct Call {
    begun: usize,
    ended: usize,
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

/// Puts together what strace splits where threads interleave: `... <unfinished ...>` and `<... name resumed>...`.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: Vec<(&str, usize)> = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix(" <unfinished ...>") {
            open.push((thread, calls.len()));
            calls.push(Call { begun: number, ended: usize::MAX, text: begun.to_owned() });
        } else if text.starts_with("<... ") {
            let Some(index) = open.iter().position(|(other, _)| *other == thread) else { continue };
            let call = &mut calls[open.swap_remove(index).1];
            call.ended = number;
            call.text.push_str(text);
        } else {
            calls.push(Call { begun: number, ended: number, text: text.to_owned() });
        }
    }
    calls
}
