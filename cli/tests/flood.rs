//! Tests of `ovation flood` over every protocol, with fake producers that refuse votes, stall and crash.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

#[path = "../../load/tests/fake/mod.rs"]
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

use fake::{Arrival, FakeProducer, Reaction};
use serde_json::Value;
use uuid::Uuid;

const PROTOCOLS: [&str; 4] = ["rest", "rest-batch", "grpc", "grpc-stream"];

fn producer(protocol: &str, behaviour: impl Fn(&Arrival) -> Reaction + Send + Sync + 'static) -> FakeProducer {
    if protocol.starts_with("rest") { FakeProducer::rest(behaviour) } else { FakeProducer::grpc(behaviour) }
}

/// A running flood. By default, it sends 500 votes within 250 ms.
struct Flood {
    child: Child,
    receipts: PathBuf,
}

struct Finished {
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

    fn finish(self) -> Finished {
        let Output { status, stdout, stderr } = self.child.wait_with_output().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        let json = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        let receipts = fs::read_to_string(&self.receipts).unwrap().lines().map(str::to_owned).collect();
        fs::remove_file(&self.receipts).unwrap();
        let finished = Finished { json, receipts, exit_code: status.code().unwrap(), stderr };
        // These assertions hold for every flood of these tests.
        let [sent, acknowledged, refused, failed] =
            ["sent", "acknowledged", "refused", "failed"].map(|name| finished.count(name));
        assert_eq!(acknowledged + refused + failed, sent, "{}", finished.json);
        assert_eq!(finished.receipts.len(), acknowledged, "one receipt for each acknowledged vote");
        assert_eq!(finished.exit_code, i32::from(acknowledged < sent), "{}", finished.stderr);
        finished
    }
}

fn flood(protocol: &str, producer: &FakeProducer, flags: &str) -> Finished {
    Flood::start(protocol, &producer.url(), flags).finish()
}

impl Finished {
    fn count(&self, name: &str) -> usize {
        usize::try_from(self.json[name].as_u64().unwrap()).unwrap()
    }

    fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().unwrap_or_else(|| panic!("{name} of {}", self.json))
    }
}

fn to_set(ids: &[String]) -> HashSet<&String> {
    ids.iter().collect()
}

#[test]
fn every_due_vote_is_sent_once_and_acknowledged() {
    for protocol in PROTOCOLS {
        let producer = producer(protocol, |_| Reaction::Accept);
        let finished = flood(protocol, &producer, "");
        assert_eq!(finished.count("sent") + finished.count("unsent"), 500, "{protocol}: {}", finished.json);
        assert_eq!(finished.count("acknowledged"), finished.count("sent"), "{protocol}: {}", finished.json);
        let arrivals = producer.arrivals();
        assert_eq!(arrivals.len(), finished.count("sent"), "{protocol}");
        assert_eq!(to_set(&arrivals), to_set(&finished.receipts), "{protocol}");
        assert_eq!(finished.json["protocol"], protocol);
        let rate = finished.number("acknowledged") / finished.number("seconds");
        assert!((0.99..1.01).contains(&(finished.number("rate") / rate)), "{protocol}: {}", finished.json);
        for (low, high) in [("p50_ms", "p90_ms"), ("p90_ms", "p99_ms"), ("p99_ms", "p999_ms"), ("p999_ms", "max_ms")] {
            assert!(finished.number(low) <= finished.number(high), "{protocol}: {}", finished.json);
        }
    }
}

#[test]
fn a_closed_loop_sends_votes_until_the_end_of_its_time() {
    for protocol in PROTOCOLS {
        let producer = producer(protocol, |_| Reaction::Accept);
        let finished = flood(protocol, &producer, "--rate max --for 200ms");
        assert!(finished.count("acknowledged") > 500, "{protocol}: {}", finished.json);
        assert_eq!(producer.arrivals().len(), finished.count("sent"), "{protocol}");
        assert!(finished.json["offered"].is_null());
    }
}

#[test]
fn refused_votes_are_counted_and_reported_and_have_no_receipt() {
    for protocol in PROTOCOLS {
        let producer =
            producer(
                protocol,
                |arrival| if arrival.number.is_multiple_of(5) { Reaction::Refuse } else { Reaction::Accept },
            );
        let finished = flood(protocol, &producer, "--retry-for 10s");
        let refused = finished.count("sent").div_ceil(5);
        assert_eq!(
            (finished.count("refused"), finished.count("failed")),
            (refused, 0),
            "{protocol}: {}",
            finished.json
        );
        assert_eq!(finished.count("retries"), 0, "{protocol}: a permanent refusal is not retried");
        assert!(finished.stderr.contains(&format!("{refused} of ")), "{}", finished.stderr);
        assert!(finished.stderr.contains("name: required"), "{}", finished.stderr);
        assert_eq!(finished.json["errors"][0]["votes"], refused);
        let refused: HashSet<_> = producer.arrivals().into_iter().step_by(5).collect();
        assert!(finished.receipts.iter().all(|id| !refused.contains(id)), "{protocol}");
    }
}

#[test]
fn without_retries_a_vote_with_503_is_refused_and_sent_once() {
    for protocol in PROTOCOLS {
        let producer = producer(protocol, |_| Reaction::RefuseTemporarily);
        let finished = flood(protocol, &producer, "");
        let arrivals = producer.arrivals();
        assert_eq!(finished.count("refused"), finished.count("sent"), "{protocol}: {}", finished.json);
        assert_eq!(to_set(&arrivals).len(), arrivals.len(), "{protocol}");
        assert!(finished.json["p50_ms"].is_null());
    }
}

#[test]
fn a_vote_with_503_is_sent_again_with_the_same_id_until_it_is_acknowledged() {
    for protocol in PROTOCOLS {
        let producer =
            producer(
                protocol,
                |arrival| if arrival.earlier < 2 { Reaction::RefuseTemporarily } else { Reaction::Accept },
            );
        let finished = flood(protocol, &producer, "--rate 400 --retry-for 60s");
        let sent = finished.count("sent");
        assert!(sent > 0 && finished.count("acknowledged") == sent, "{protocol}: {}", finished.json);
        assert_eq!(finished.count("retries"), 2 * sent, "{protocol}");
        let mut times = HashMap::<_, usize>::new();
        for id in producer.arrivals() {
            *times.entry(id).or_default() += 1;
        }
        assert!(times.len() == sent && times.values().all(|times| *times == 3), "{protocol}: {times:?}");
    }
}

#[test]
fn a_lost_connection_fails_its_votes_and_the_flood_continues() {
    for protocol in ["rest", "rest-batch", "grpc-stream"] {
        let producer =
            producer(protocol, |arrival| if arrival.number == 100 { Reaction::Disconnect } else { Reaction::Accept });
        let finished = flood(protocol, &producer, "");
        assert!(finished.count("failed") + finished.count("refused") > 0, "{protocol}: {}", finished.json);
        assert!(finished.count("acknowledged") > 0, "{protocol}: {}", finished.json);
    }
}

#[test]
fn votes_that_a_producer_did_not_read_before_its_shutdown_are_sent_on_a_new_stream() {
    let producer = FakeProducer::grpc(|arrival| match arrival.number {
        100..110 => Reaction::ShutDown,
        _ => Reaction::Accept,
    });
    let finished = flood("grpc-stream", &producer, "");
    assert_eq!(finished.count("acknowledged"), finished.count("sent"), "{}", finished.json);
    assert!(finished.count("retries") > 0, "{}", finished.json);
    assert_eq!(to_set(&producer.arrivals()), to_set(&finished.receipts));

    // If every producer shuts down, the flood gives up after the timeout.
    let producer = FakeProducer::grpc(|_| Reaction::ShutDown);
    let finished = flood("grpc-stream", &producer, "--timeout 500ms");
    assert_eq!(
        (finished.count("failed"), finished.count("acknowledged")),
        (finished.count("sent"), 0),
        "{}",
        finished.json
    );
}

#[test]
fn votes_in_flight_at_a_crash_are_sent_again_with_the_same_id_after_the_restart() {
    for protocol in PROTOCOLS {
        // The producer accepts some votes, then does not respond until the crash.
        let has_crashed = Arc::new(AtomicBool::new(false));
        let crashed = Arc::clone(&has_crashed);
        let mut producer = producer(protocol, move |arrival| {
            if arrival.number < 150 || crashed.load(Ordering::SeqCst) { Reaction::Accept } else { Reaction::Hang }
        });
        let flood = Flood::start(protocol, &producer.url(), "--retry-for 60s --connections 2");
        producer.wait_for_arrivals(151);
        producer.crash();
        let before = producer.arrivals();
        has_crashed.store(true, Ordering::SeqCst);
        producer.reopen();
        let finished = flood.finish();
        assert!(finished.count("retries") > 0, "{protocol}: {}", finished.json);
        assert_eq!(finished.count("acknowledged"), finished.count("sent"), "{protocol}: {}", finished.json);
        assert!(
            before.iter().all(|id| finished.receipts.contains(id)),
            "{protocol}: every vote from before the crash is acknowledged"
        );
    }
}

#[test]
fn without_a_server_every_vote_fails_but_with_retries_votes_are_acknowledged_after_it_starts() {
    for protocol in PROTOCOLS {
        let mut producer = producer(protocol, |_| Reaction::Accept);
        producer.crash();
        let finished = flood(protocol, &producer, "");
        assert_eq!(finished.count("failed"), finished.count("sent"), "{protocol}: {}", finished.json);
        assert!(finished.count("sent") > 0 && finished.stderr.contains("refused"), "{protocol}: {}", finished.stderr);

        let waiting = Flood::start(protocol, &producer.url(), "--rate 100 --retry-for 60s");
        producer.reopen();
        let finished = waiting.finish();
        assert_eq!(finished.count("acknowledged"), finished.count("sent"), "{protocol}: {}", finished.json);
    }
}

#[test]
fn a_vote_without_a_response_fails_after_the_timeout() {
    for protocol in PROTOCOLS {
        let producer =
            producer(protocol, |arrival| if arrival.number == 50 { Reaction::Hang } else { Reaction::Accept });
        let finished = flood(protocol, &producer, "--timeout 100ms");
        assert!(finished.count("failed") > 0, "{protocol}: {}", finished.json);
        assert!(finished.stderr.contains("no response within 100ms"), "{protocol}: {}", finished.stderr);
        assert!(finished.count("acknowledged") > 0, "{protocol}: {}", finished.json);
    }
}

#[test]
fn the_wait_for_a_stalled_server_counts_as_latency() {
    // Half of the votes become due during the stall. Their latencies are between 0 and 500 ms.
    let stall = |arrival: &Arrival| {
        if arrival.number == 0 { Reaction::Stall(Duration::from_millis(500)) } else { Reaction::Accept }
    };
    for (protocol, one_in_flight) in [("rest", "--connections 1"), ("grpc", "--connections 1 --in-flight 1")] {
        let producer = producer(protocol, stall);
        let finished = flood(protocol, &producer, &format!("--rate 500 --for 1s {one_in_flight}"));
        assert_eq!(finished.count("acknowledged"), finished.count("sent"), "{protocol}: {}", finished.json);
        assert!(finished.number("p90_ms") > 300.0, "{protocol}: {}", finished.json);
        assert!(finished.number("max_ms") >= 500.0, "{protocol}: {}", finished.json);
    }
}

#[test]
fn a_receipt_is_in_the_file_while_the_flood_runs() {
    let producer = FakeProducer::rest(|arrival| if arrival.number == 0 { Reaction::Accept } else { Reaction::Hang });
    let mut flood = Flood::start("rest", &producer.url(), "--connections 1 --for 1h");
    producer.wait_for_arrivals(2);
    let give_up = Instant::now() + Duration::from_mins(1);
    while !fs::read_to_string(&flood.receipts).is_ok_and(|lines| lines == format!("{}\n", producer.arrivals()[0])) {
        assert!(Instant::now() < give_up, "no receipt");
        thread::yield_now();
    }
    flood.child.kill().unwrap();
    flood.child.wait().unwrap();
    fs::remove_file(&flood.receipts).unwrap();
}

#[test]
fn the_error_for_an_invalid_flag_names_it_and_the_exit_code_is_64() {
    let cases = [
        ("--rate fast", "--rate"),
        ("--for 5", "--for"),
        ("--connections 0", "--connections"),
        ("--protocol rest --in-flight 5", "--in-flight"),
        ("--batch-size 10001", "--batch-size"),
        ("--url https://producer", "--url"),
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
fn a_flood_prints_a_report_unless_it_is_quiet() {
    let producer = FakeProducer::rest(|_| Reaction::Accept);
    let run = |flag: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ovation"));
        command
            .args(["flood", "--url", &producer.url(), "--rate", "1000", "--for", "100ms"])
            .args(flag.split_whitespace());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let report = run("");
    assert!(report.contains("acknowledged") && report.contains("p50") && report.contains("p99.9"), "{report}");
    assert_eq!(run("--quiet"), "");
    assert!(run("--quiet --json").starts_with('{'));
}
