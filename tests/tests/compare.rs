//! `ovation compare` measures every producer in every round, and writes a complete report.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Output};

use serde_json::Value;
use tests::{Addresses, System, run};

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// Runs a comparison that takes some seconds.
fn compare(system: &System, rest_admin: &str, grpc_admin: &str, out: &Path) -> Output {
    let Addresses { rest, grpc, .. } = system.addresses;
    let producers =
        ["--rest", &url(rest), "--grpc", &url(grpc), "--rest-admin", rest_admin, "--grpc-admin", grpc_admin];
    let settings = ["--rates", "300,max", "--rounds", "2", "--seconds", "300ms", "--pause", "20ms"];
    run(&[&["compare", "--json", "--out", out.to_str().unwrap()], &producers[..], &settings].concat())
}

#[test]
fn every_producer_is_measured_twice_per_round_and_the_report_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"));
    let out = folder.path().join("comparison");
    let admin = url(system.addresses.admin);
    let done = compare(&system, &admin, &admin, &out);
    assert!(done.status.success(), "{done:?}");

    let csv = fs::read_to_string(out.join("measurements.csv")).unwrap();
    let mut measured: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
    let mut acknowledged = 0;
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        measured.entry((fields[1].to_owned(), fields[2].to_owned())).or_default().push(fields[0].parse().unwrap());
        acknowledged += fields[4].parse::<u64>().unwrap();
    }
    assert_eq!(measured.len(), 2 * 4, "two loads, four producers: {measured:?}");
    assert!(measured.values().all(|rounds| *rounds == [1, 1, 2, 2]), "twice in each round: {measured:?}");

    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(summary["rounds"], 2);
    for load in summary["loads"].as_array().unwrap() {
        assert_eq!(load["pairs"].as_array().unwrap().len(), 6, "all pairs of producers");
        for producer in load["producers"].as_array().unwrap() {
            // The id alone has 36 bytes, in the vote and in the receipt.
            assert!(producer["bytes_sent"]["median"].as_f64().unwrap() > 36.0, "{producer}");
            assert!(producer["bytes_received"]["median"].as_f64().unwrap() > 36.0, "{producer}");
            assert!(producer["resident_mb"]["median"].as_f64().unwrap() > 1.0, "{producer}");
        }
    }

    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for text in ["REST against gRPC, 300/s", "At 300 votes per second", "At the maximum rate", "does not show"] {
        assert!(report.contains(text), "{text} is missing in the report:\n{report}");
    }
    for plot in ["latency-cdf.svg", "latency-by-rate.svg"] {
        let svg = fs::read_to_string(out.join(plot)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{plot}");
        for producer in ["gRPC", "gRPC stream", "REST", "REST batch"] {
            assert!(svg.contains(producer), "{plot} does not name {producer}");
        }
    }

    // The votes are counted. The total also has the votes of the warm-up, which are not in the measurements.
    system.wait_until_counted();
    assert!(system.total("bands") > acknowledged);
}

#[test]
fn a_producer_without_metrics_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"));
    let results = system.addresses.results;
    let done = compare(&system, &url(results), "none", &folder.path().join("out"));
    assert_eq!(done.status.code(), Some(1));
    let problem = String::from_utf8(done.stderr).unwrap();
    assert!(problem.contains(&results.to_string()) && problem.contains("/metrics"), "{problem}");
}

#[test]
fn producers_without_an_admin_port_are_compared_without_their_cost() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"));
    let out = folder.path().join("out");
    let done = compare(&system, "none", "none", &out);
    assert!(done.status.success(), "{done:?}");
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    for producer in summary["loads"].as_array().unwrap().iter().flat_map(|load| load["producers"].as_array().unwrap()) {
        assert!(producer["p50_ms"]["median"].as_f64().unwrap() > 0.0, "{producer}");
        assert!(producer.get("cpu_us").is_none() && producer.get("resident_mb").is_none(), "{producer}");
    }
    let report = fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("of the producers were not measured") && !report.contains("resident MB"), "{report}");
}
