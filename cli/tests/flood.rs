//! Promises of `ovation flood`, over every protocol, against doors that fail in every way.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod fake;

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fake::{Act, Arrival, FakeDoor};
use serde_json::Value;
use uuid::Uuid;

const PROTOCOLS: [&str; 4] = ["rest", "rest-batch", "grpc", "grpc-stream"];

fn door(protocol: &str, behaviour: impl Fn(&Arrival) -> Act + Send + Sync + 'static) -> FakeDoor {
    if protocol.starts_with("rest") { FakeDoor::rest(behaviour) } else { FakeDoor::grpc(behaviour) }
}

/// A flood of 500 votes in a quarter of a second, if no flag says otherwise.
struct Flood {
    child: Child,
    receipts: PathBuf,
}

struct Found {
    json: Value,
    receipts: Vec<String>,
    exit_code: i32,
    stderr: String,
}

impl Flood {
    fn start(protocol: &str, url: &str, flags: &str) -> Self {
        let receipts = env::temp_dir().join(format!("ovation-flood-{}", Uuid::now_v7()));
        let defaults = [("--rate", "2000"), ("--for", "250ms"), ("--batch-size", "20"), ("--timeout", "30s")];
        let mut command = Command::new(env!("CARGO_BIN_EXE_ovation"));
        command.args(["flood", "--json", "--protocol", protocol, "--url", url]).arg("--receipts").arg(&receipts);
        command.args(flags.split_whitespace());
        for (flag, value) in defaults.into_iter().filter(|(flag, _)| !flags.contains(flag)) {
            command.args([flag, value]);
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, receipts }
    }

    fn finish(self) -> Found {
        let Output { status, stdout, stderr } = self.child.wait_with_output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        let json = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        let receipts = fs::read_to_string(&self.receipts).unwrap().lines().map(str::to_owned).collect();
        fs::remove_file(&self.receipts).unwrap();
        let found = Found { json, receipts, exit_code: status.code().unwrap(), stderr };
        // What holds for every flood.
        let [sent, acknowledged, refused, failed] =
            ["sent", "acknowledged", "refused", "failed"].map(|name| found.count(name));
        assert_eq!(acknowledged + refused + failed, sent, "{}", found.json);
        assert_eq!(found.receipts.len(), acknowledged, "a receipt for each acknowledged vote");
        assert_eq!(found.exit_code, i32::from(acknowledged < sent), "{}", found.stderr);
        found
    }
}

fn flood(protocol: &str, door: &FakeDoor, flags: &str) -> Found {
    Flood::start(protocol, &door.url(), flags).finish()
}

impl Found {
    fn count(&self, name: &str) -> usize {
        usize::try_from(self.json[name].as_u64().unwrap()).unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().unwrap_or_else(|| panic!("{name} of {}", self.json))
    }
}

fn set(ids: &[String]) -> HashSet<&String> {
    ids.iter().collect()
}

#[test]
fn every_due_vote_is_sent_once_and_acknowledged() {
    for protocol in PROTOCOLS {
        let door = door(protocol, |_| Act::Accept);
        let found = flood(protocol, &door, "");
        assert_eq!(found.count("sent") + found.count("unsent"), 500, "{protocol}: {}", found.json);
        assert_eq!(found.count("acknowledged"), found.count("sent"), "{protocol}: {}", found.json);
        let arrivals = door.arrivals();
        assert_eq!(arrivals.len(), found.count("sent"), "{protocol}");
        assert_eq!(set(&arrivals), set(&found.receipts), "{protocol}");
        assert_eq!(found.json["protocol"], protocol);
        let rate = found.number("acknowledged") / found.number("seconds");
        assert!((0.99..1.01).contains(&(found.number("rate") / rate)), "{protocol}: {}", found.json);
        for (low, high) in [("p50_ms", "p90_ms"), ("p90_ms", "p99_ms"), ("p99_ms", "p999_ms"), ("p999_ms", "max_ms")] {
            assert!(found.number(low) <= found.number(high), "{protocol}: {}", found.json);
        }
    }
}

#[test]
fn a_closed_loop_sends_until_the_time_is_over() {
    for protocol in PROTOCOLS {
        let door = door(protocol, |_| Act::Accept);
        let found = flood(protocol, &door, "--rate max --for 200ms");
        assert!(found.count("acknowledged") > 500, "{protocol}: {}", found.json);
        assert_eq!(door.arrivals().len(), found.count("sent"), "{protocol}");
        assert!(found.json["offered"].is_null());
    }
}

#[test]
fn refused_votes_are_counted_named_and_get_no_receipt() {
    for protocol in PROTOCOLS {
        let door = door(protocol, |arrival| if arrival.number.is_multiple_of(5) { Act::Refuse } else { Act::Accept });
        let found = flood(protocol, &door, "--retry-for 10s");
        let refused = found.count("sent").div_ceil(5);
        assert_eq!((found.count("refused"), found.count("failed")), (refused, 0), "{protocol}: {}", found.json);
        assert_eq!(found.count("retries"), 0, "{protocol}: a lasting refusal is not worth a retry");
        assert!(found.stderr.contains(&format!("{refused} of ")), "{}", found.stderr);
        assert!(found.stderr.contains("name: required"), "{}", found.stderr);
        assert_eq!(found.json["errors"][0]["votes"], refused);
        let refused: HashSet<_> = door.arrivals().into_iter().step_by(5).collect();
        assert!(found.receipts.iter().all(|id| !refused.contains(id)), "{protocol}");
    }
}

#[test]
fn without_retries_a_vote_that_met_503_is_refused_and_sent_once() {
    for protocol in PROTOCOLS {
        let door = door(protocol, |_| Act::RefuseForNow);
        let found = flood(protocol, &door, "");
        let arrivals = door.arrivals();
        assert_eq!(found.count("refused"), found.count("sent"), "{protocol}: {}", found.json);
        assert_eq!(set(&arrivals).len(), arrivals.len(), "{protocol}");
        assert!(found.json["p50_ms"].is_null());
    }
}

#[test]
fn a_vote_that_met_503_is_sent_again_with_the_same_id_until_it_is_acknowledged() {
    for protocol in PROTOCOLS {
        let door = door(protocol, |arrival| if arrival.earlier < 2 { Act::RefuseForNow } else { Act::Accept });
        let found = flood(protocol, &door, "--rate 400 --retry-for 60s");
        let sent = found.count("sent");
        assert!(sent > 0 && found.count("acknowledged") == sent, "{protocol}: {}", found.json);
        assert_eq!(found.count("retries"), 2 * sent, "{protocol}");
        let mut times = HashMap::<_, usize>::new();
        for id in door.arrivals() {
            *times.entry(id).or_default() += 1;
        }
        assert!(times.len() == sent && times.values().all(|times| *times == 3), "{protocol}: {times:?}");
    }
}

#[test]
fn a_connection_that_is_cut_fails_its_votes_and_the_flood_goes_on() {
    for protocol in ["rest", "rest-batch", "grpc-stream"] {
        let door = door(protocol, |arrival| if arrival.number == 100 { Act::Cut } else { Act::Accept });
        let found = flood(protocol, &door, "");
        assert!(found.count("failed") + found.count("refused") > 0, "{protocol}: {}", found.json);
        assert!(found.count("acknowledged") > 0, "{protocol}: {}", found.json);
    }
}

#[test]
fn what_a_leaving_door_did_not_take_goes_on_a_new_stream_and_nothing_failed() {
    let door = FakeDoor::grpc(|arrival| match arrival.number {
        100..110 => Act::Leave,
        _ => Act::Accept,
    });
    let found = flood("grpc-stream", &door, "");
    assert_eq!(found.count("acknowledged"), found.count("sent"), "{}", found.json);
    assert!(found.count("retries") > 0, "{}", found.json);
    assert_eq!(set(&door.arrivals()), set(&found.receipts));

    // Nor is a door that never stays waited for without end.
    let door = FakeDoor::grpc(|_| Act::Leave);
    let found = flood("grpc-stream", &door, "--timeout 500ms");
    assert_eq!((found.count("failed"), found.count("acknowledged")), (found.count("sent"), 0), "{}", found.json);
}

#[test]
fn votes_in_flight_at_a_crash_are_sent_again_with_the_same_id_after_the_restart() {
    for protocol in PROTOCOLS {
        // Accepts some, then keeps the clients waiting until the crash.
        let has_crashed = Arc::new(AtomicBool::new(false));
        let crashed = Arc::clone(&has_crashed);
        let mut door = door(protocol, move |arrival| {
            if arrival.number < 150 || crashed.load(Ordering::SeqCst) { Act::Accept } else { Act::Hang }
        });
        let flood = Flood::start(protocol, &door.url(), "--retry-for 60s --connections 2");
        door.wait_for_arrivals(151);
        door.crash();
        let before = door.arrivals();
        has_crashed.store(true, Ordering::SeqCst);
        door.reopen();
        let found = flood.finish();
        assert!(found.count("retries") > 0, "{protocol}: {}", found.json);
        assert_eq!(found.count("acknowledged"), found.count("sent"), "{protocol}: {}", found.json);
        assert!(before.iter().all(|id| found.receipts.contains(id)), "{protocol}: every vote of before the crash");
    }
}

#[test]
fn a_server_that_is_not_there_fails_every_vote_and_later_ones_find_it() {
    for protocol in PROTOCOLS {
        let mut door = door(protocol, |_| Act::Accept);
        door.crash();
        let found = flood(protocol, &door, "");
        assert_eq!(found.count("failed"), found.count("sent"), "{protocol}: {}", found.json);
        assert!(found.count("sent") > 0 && found.stderr.contains("refused"), "{protocol}: {}", found.stderr);

        let waiting = Flood::start(protocol, &door.url(), "--rate 100 --retry-for 60s");
        door.reopen();
        let found = waiting.finish();
        assert_eq!(found.count("acknowledged"), found.count("sent"), "{protocol}: {}", found.json);
    }
}

#[test]
fn a_vote_without_an_answer_fails_after_its_time() {
    for protocol in PROTOCOLS {
        let door = door(protocol, |arrival| if arrival.number == 50 { Act::Hang } else { Act::Accept });
        let found = flood(protocol, &door, "--timeout 100ms");
        assert!(found.count("failed") > 0, "{protocol}: {}", found.json);
        assert!(found.stderr.contains("no answer within 100ms"), "{protocol}: {}", found.stderr);
        assert!(found.count("acknowledged") > 0, "{protocol}: {}", found.json);
    }
}

#[test]
fn waiting_for_a_stalled_server_counts_as_latency() {
    // The first half of the votes becomes due while the first is waited for: between 500 and 0 ms of latency each.
    let stall = |arrival: &Arrival| {
        if arrival.number == 0 { Act::Stall(Duration::from_millis(500)) } else { Act::Accept }
    };
    for (protocol, one_in_flight) in [("rest", "--connections 1"), ("grpc", "--connections 1 --in-flight 1")] {
        let door = door(protocol, stall);
        let found = flood(protocol, &door, &format!("--rate 500 --for 1s {one_in_flight}"));
        assert_eq!(found.count("acknowledged"), found.count("sent"), "{protocol}: {}", found.json);
        assert!(found.number("p90_ms") > 300.0, "{protocol}: {}", found.json);
        assert!(found.number("max_ms") >= 500.0, "{protocol}: {}", found.json);
    }
}

#[test]
fn a_receipt_is_in_the_file_while_the_flood_still_runs() {
    let door = FakeDoor::rest(|arrival| if arrival.number == 0 { Act::Accept } else { Act::Hang });
    let mut flood = Flood::start("rest", &door.url(), "--connections 1 --for 1h");
    door.wait_for_arrivals(2);
    let give_up = Instant::now() + Duration::from_mins(1);
    while !fs::read_to_string(&flood.receipts).is_ok_and(|lines| lines == format!("{}\n", door.arrivals()[0])) {
        assert!(Instant::now() < give_up, "no receipt");
        thread::yield_now();
    }
    flood.child.kill().unwrap();
    flood.child.wait().unwrap();
    fs::remove_file(&flood.receipts).unwrap();
}

#[test]
fn a_wrong_flag_is_named_and_exits_64() {
    let cases = [
        ("--rate fast", "--rate"),
        ("--for 5", "--for"),
        ("--connections 0", "--connections"),
        ("--protocol rest --in-flight 5", "--in-flight"),
        ("--batch-size 10001", "--batch-size"),
        ("--url https://door", "--url"),
        ("--votes /nowhere", "--votes"),
        ("--receipts /nowhere/receipts", "--receipts"),
        ("--voters some", "--voters"),
        ("--contest No!", "--contest"),
        ("--timeout 0", "--timeout"),
        ("--frobnicate", "--frobnicate"),
    ];
    for (flags, named) in cases {
        let command = || Command::new(env!("CARGO_BIN_EXE_ovation"));
        let output = command().arg("flood").args(flags.split(' ')).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags}: {stderr}");
        assert!(stderr.contains(named) && output.stdout.is_empty(), "{flags}: {stderr}");
    }
}

#[test]
fn people_get_a_report_and_quiet_ones_nothing() {
    let door = FakeDoor::rest(|_| Act::Accept);
    let run = |flag: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ovation"));
        command.args(["flood", "--url", &door.url(), "--rate", "1000", "--for", "100ms"]).args(flag.split_whitespace());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let report = run("");
    assert!(report.contains("acknowledged") && report.contains("p50") && report.contains("p99.9"), "{report}");
    assert_eq!(run("--quiet"), "");
    assert!(run("--quiet --json").starts_with('{'));
}
