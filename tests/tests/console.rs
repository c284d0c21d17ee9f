//! What the console shows of a running system: votes by period as they are settled, and what the parts do.
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
use tests::{Addresses, PATIENCE, System, command, json, run, wait_for};

fn start() -> (TempDir, System) {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start_with(&folder.path().join("data"), Addresses::free(), &[]);
    (folder, system)
}

/// A command that goes on until it is interrupted, and its lines.
struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn start(args: &[&str]) -> Self {
        let mut child = command().args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Self { child, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another line")
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "it ends well");
    }
}

#[test]
fn a_followed_period_is_complete_and_never_changes() {
    let (_folder, system) = start();
    let results = format!("http://{}", system.addresses.results);
    let following = Following::start(&["rate", "--url", &results, "--every", "10ms", "--follow", "--json"]);
    // It has asked once the first period is there, and no vote before that is expected of it.
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
    // The flood is over, so a period that begins now has none of its votes.
    let over = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    while printed.last().is_some_and(|(start, _)| *start < over) {
        next(&mut printed);
    }
    following.interrupt();

    assert!(printed.windows(2).all(|pair| pair[0].0 + 10 == pair[1].0), "each period is there, and once");
    assert!(printed.iter().any(|(_, votes)| *votes == 0));
    assert_eq!(
        printed.iter().map(|(_, votes)| votes).sum::<u64>(),
        votes,
        "each vote is in the period in which it was printed"
    );
    let now = json(&run(&["rate", "--url", &results, "--every", "10ms", "--last", "5m", "--json"]));
    let now = now.as_array().unwrap().iter();
    let now: BTreeMap<i64, u64> =
        now.map(|window| (window["start"].as_i64().unwrap(), window["votes"].as_u64().unwrap())).collect();
    let then: BTreeMap<i64, u64> = printed.into_iter().filter(|(_, votes)| *votes > 0).collect();
    assert_eq!(now, then);
}

#[test]
fn following_may_begin_in_the_past() {
    let (_folder, system) = start();
    let results = format!("http://{}", system.addresses.results);
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    let args = ["rate", "--url", &results, "--every", "1s", "--last", "1m", "--follow"];
    let following = Following::start(&args);
    let votes = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    let mut lines = 1;
    while votes(&following.next()) == 0 {
        lines += 1;
    }
    assert!(lines > 50, "only {lines} periods until the vote");
    following.interrupt();
}

#[test]
fn what_is_no_longer_kept_is_said() {
    let (_folder, system) = start();
    let results = format!("http://{}", system.addresses.results);
    let output = run(&["rate", "--url", &results, "--every", "10ms", "--last", "1h", "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output), json!([]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("10ms") && error.contains("15 minutes"), "{error}");
    let output = run(&["rate", "--url", &results, "--every", "10ms", "--last", "15m"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    // On no terminal there are no blocks.
    assert!(output.stdout.is_ascii());
}

/// Where tests run the CPU may be busy, which is told as degraded.
fn is_well(health: &str) -> bool {
    health == "healthy" || health == "degraded"
}

#[test]
fn the_parts_say_what_they_do() {
    let (_folder, system) = start();
    let admin = format!("http://{}", system.addresses.admin);
    assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
    system.wait_until_counted();
    let once = json(&run(&["stats", "--admin", &admin, "--json"]));
    let part = &once["parts"][0];
    assert_eq!(part["program"], "ovation", "{once}");
    assert!(is_well(part["health"].as_str().unwrap()), "{once}");
    assert_eq!((part["accepted_per_second"].as_f64(), part["lag"].as_f64()), (Some(0.0), Some(0.0)), "{once}");
    assert!(part["memory_bytes"].as_f64().unwrap() > 1e6 && part["cpu"].as_f64().unwrap() >= 0.0, "{once}");
    assert!(part["used"]["disk"].as_f64().unwrap() > 0.0, "{once}");

    let following = Following::start(&["stats", "--admin", &admin, "--follow", "--json"]);
    let mut seen = (false, false);
    let mut posted = 0;
    while seen != (true, true) {
        assert_eq!(system.post_batch(&json!(vec![json!({ "name": "Queen" }); 100])).0, 200);
        posted += 1;
        assert!(posted < 1_000, "nothing of the votes is shown");
        let Ok(line) = following.lines.recv_timeout(Duration::from_millis(50)) else { continue };
        let part = &serde_json::from_str::<Value>(&line).unwrap()["parts"][0];
        seen.0 |= part["accepted_per_second"].as_f64().unwrap() > 0.0;
        seen.1 |= part["counted_per_second"].as_f64().unwrap() > 0.0;
    }
    following.interrupt();

    let lines = Following::start(&["stats", "--admin", &admin, "--follow"]);
    for _ in 0..2 {
        let line = lines.next();
        assert!(is_well(line.split_whitespace().nth(2).unwrap()) && line.contains("counted/s"), "{line}");
    }
    lines.interrupt();
}

#[test]
fn a_part_that_is_gone_is_shown_as_such() {
    let (_folder, mut system) = start();
    let admin = format!("http://{}", system.addresses.admin);
    let following = Following::start(&["stats", "--admin", &admin, "--follow"]);
    assert!(following.next().contains("counted/s 0"));
    system.kill();
    wait_for("its silence to be shown", || following.next().contains("ovation  silent"));
    following.interrupt();
    // Where nobody answers from the beginning, the address is wrong.
    let output = run(&["stats", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains(&admin));
}
