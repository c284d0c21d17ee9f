//! Measures the CPU per vote of the flood itself: `cargo bench -p ovation --bench flood`.
//!
//! This benchmark floods fake producers that accept every vote, and divides the CPU time of the program `ovation` by
//! the number of acknowledged votes. If a flood and a server share a machine, these figures show which part of the CPU
//! the flood itself uses.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

#[path = "../../load/tests/fake/mod.rs"]
mod fake;

use std::{
    fs,
    process::{Command, Stdio},
};

use fake::FakeProducer;
use serde_json::Value;

fn main() {
    let rest = FakeProducer::rest_echo();
    let grpc = FakeProducer::grpc_echo();
    println!(
        "{:<12} {:>9} {:>12} {:>12} {:>9} {:>9}",
        "protocol", "offered", "votes/s", "us CPU/vote", "p50 ms", "p99 ms"
    );
    for (protocol, rates) in [
        ("rest", ["1000", "10000", "max"]),
        ("grpc", ["1000", "10000", "max"]),
        ("rest-batch", ["10000", "50000", "max"]),
        ("grpc-stream", ["10000", "50000", "max"]),
    ] {
        let url = if protocol.starts_with("rest") { rest.url() } else { grpc.url() };
        for rate in rates {
            let before = children_cpu_us();
            let output = Command::new(env!("CARGO_BIN_EXE_ovation"))
                .args(["flood", "--json", "--for", "5s", "--protocol", protocol, "--url", &url, "--rate", rate])
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            let cpu = children_cpu_us() - before;
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let number = |name: &str| report[name].as_f64().unwrap_or(f64::NAN);
            println!(
                "{protocol:<12} {rate:>9} {:>12.0} {:>12.2} {:>9.2} {:>9.2}",
                number("rate"),
                cpu / number("acknowledged"),
                number("p50_ms"),
                number("p99_ms")
            );
        }
    }
}

/// Returns the user and system time of the finished child processes in microseconds, see proc(5). A clock tick is
/// assumed to be 10 ms, the usual value.
fn children_cpu_us() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The name of the program is in parentheses and may contain any character; cutime and cstime are fields 16 and 17.
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<f64>().unwrap() * 10_000.0).sum()
}
