//! `ovation rate` prints the settled periods of a running system, and `ovation stats` prints the figures of its
//! processes.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Addresses, System, TEST_TIMEOUT, command, json, run, wait_for};

fn start() -> (TempDir, System) {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start_with(&folder.path().join("data"), Addresses::free(), &[]);
    (folder, system)
}

/// A command that runs until it is interrupted, and the lines that it prints.
struct RunningCommand {
    child: Child,
    lines: Receiver<String>,
}

impl RunningCommand {
    fn start(args: &[&str]) -> Self {
        let mut child = command().args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(TEST_TIMEOUT).expect("another line")
    }

    /// Sends SIGINT, as Ctrl-C does.
    fn interrupt(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "the command ends without an error");
    }
}

#[test]
fn a_followed_period_is_complete_and_never_changes() {
    let (_folder, system) = start();
    let results = format!("http://{}", system.addresses.results);
    let following = RunningCommand::start(&["rate", "--url", &results, "--every", "10ms", "--follow", "--json"]);
    // Waits for the first period, so that the command prints every later one.
    let mut printed: Vec<(i64, u64)> = Vec::new();
    let next = |printed: &mut Vec<(i64, u64)>| {
        let period: Value = serde_json::from_str(&following.next()).unwrap();
        printed.push((period["start"].as_i64().unwrap(), period["votes"].as_u64().unwrap()));
    };
    next(&mut printed);
    let flood = run(&[
        "flood",
        "--protocol",
        "rest",
        "--url",
        &format!("http://{}", system.addresses.rest),
        "--rate",
        "500",
        "--for",
        "3s",
        "--json",
    ]);
    let votes = json(&flood)["acknowledged"].as_u64().unwrap();
    assert!(votes > 500, "{flood:?}");
    // The flood has ended, so a period that starts now has no vote of the flood.
    let flood_end = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    while printed.last().is_some_and(|(start, _)| *start < flood_end) {
        next(&mut printed);
    }
    following.interrupt();

    assert!(printed.windows(2).all(|pair| pair[0].0 + 10 == pair[1].0), "each period is printed once");
    assert!(printed.iter().any(|(_, votes)| *votes == 0));
    assert_eq!(
        printed.iter().map(|(_, votes)| votes).sum::<u64>(),
        votes,
        "each vote is in the period in which it was printed"
    );
    let listed = json(&run(&["rate", "--url", &results, "--every", "10ms", "--last", "5m", "--json"]));
    let listed = listed.as_array().unwrap().iter();
    let listed: BTreeMap<i64, u64> =
        listed.map(|period| (period["start"].as_i64().unwrap(), period["votes"].as_u64().unwrap())).collect();
    let followed: BTreeMap<i64, u64> = printed.into_iter().filter(|(_, votes)| *votes > 0).collect();
    assert_eq!(listed, followed);
}

#[test]
fn following_can_start_in_the_past() {
    let (_folder, system) = start();
    let results = format!("http://{}", system.addresses.results);
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    let args = ["rate", "--url", &results, "--every", "1s", "--last", "1m", "--follow"];
    let following = RunningCommand::start(&args);
    let votes = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    let mut lines = 1;
    while votes(&following.next()) == 0 {
        lines += 1;
    }
    assert!(lines > 50, "only {lines} periods until the vote");
    following.interrupt();
}

#[test]
fn a_request_for_expired_periods_prints_a_note() {
    let (_folder, system) = start();
    let results = format!("http://{}", system.addresses.results);
    let output = run(&["rate", "--url", &results, "--every", "10ms", "--last", "1h", "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output), json!([]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("10ms") && error.contains("15 minutes"), "{error}");
    let output = run(&["rate", "--url", &results, "--every", "10ms", "--last", "15m"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    // There are no bars, because the output is not a terminal.
    assert!(output.stdout.is_ascii());
}

/// Returns whether the health is healthy or degraded. Degraded is allowed, because a process reports a busy CPU as
/// degraded.
fn is_running(health: &str) -> bool {
    health == "healthy" || health == "degraded"
}

#[test]
fn the_figures_of_a_process_are_shown() {
    let (_folder, system) = start();
    let admin = format!("http://{}", system.addresses.admin);
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    system.wait_until_counted();
    let once = json(&run(&["stats", "--admin", &admin, "--json"]));
    let process = &once["processes"][0];
    assert_eq!(process["program"], "ovation", "{once}");
    assert!(is_running(process["health"].as_str().unwrap()), "{once}");
    assert_eq!((process["accepted_per_second"].as_f64(), process["lag"].as_f64()), (Some(0.0), Some(0.0)), "{once}");
    assert!(process["memory_bytes"].as_f64().unwrap() > 1e6 && process["cpu"].as_f64().unwrap() >= 0.0, "{once}");
    assert!(process["used"]["disk"].as_f64().unwrap() > 0.0, "{once}");

    let following = RunningCommand::start(&["stats", "--admin", &admin, "--follow", "--json"]);
    let (mut has_accepted, mut has_counted) = (false, false);
    let mut posted = 0;
    while !(has_accepted && has_counted) {
        assert_eq!(system.post_batch(&json!(vec![json!({ "name": "Queen" }); 100])).0, 200);
        posted += 1;
        assert!(posted < 1_000, "the votes are not shown");
        let Ok(line) = following.lines.recv_timeout(Duration::from_millis(50)) else { continue };
        let process = &serde_json::from_str::<Value>(&line).unwrap()["processes"][0];
        has_accepted |= process["accepted_per_second"].as_f64().unwrap() > 0.0;
        has_counted |= process["counted_per_second"].as_f64().unwrap() > 0.0;
    }
    following.interrupt();

    let lines = RunningCommand::start(&["stats", "--admin", &admin, "--follow"]);
    for _ in 0..2 {
        let line = lines.next();
        assert!(is_running(line.split_whitespace().nth(2).unwrap()) && line.contains("counted/s"), "{line}");
    }
    lines.interrupt();
}

#[test]
fn a_killed_process_is_shown_as_unreachable() {
    let (_folder, mut system) = start();
    let admin = format!("http://{}", system.addresses.admin);
    let following = RunningCommand::start(&["stats", "--admin", &admin, "--follow"]);
    assert!(following.next().contains("counted/s 0"));
    system.kill();
    wait_for("the process to be unreachable", || following.next().contains("ovation  unreachable"));
    following.interrupt();
    // If no process responds at the start, the address is wrong.
    let output = run(&["stats", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains(&admin));
}
