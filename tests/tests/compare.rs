//! `ovation compare` measures every door as often as it says, and writes a report that is whole.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Output};

use serde_json::Value;
use tests::{Addresses, System, run};

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// A comparison that takes some seconds.
fn compare(system: &System, rest_admin: &str, grpc_admin: &str, out: &Path) -> Output {
    let Addresses { rest, grpc, .. } = system.addresses;
    let doors = ["--rest", &url(rest), "--grpc", &url(grpc), "--rest-admin", rest_admin, "--grpc-admin", grpc_admin];
    let short = ["--rates", "300,max", "--rounds", "2", "--seconds", "300ms", "--rest-between", "20ms"];
    run(&[&["compare", "--json", "--out", out.to_str().unwrap()], &doors[..], &short].concat())
}

#[test]
fn every_door_is_measured_forth_and_back_and_the_report_is_whole() {
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
    assert_eq!(measured.len(), 2 * 4, "two loads, four doors: {measured:?}");
    assert!(measured.values().all(|rounds| *rounds == [1, 1, 2, 2]), "forth and back in each round: {measured:?}");

    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(summary["rounds"], 2);
    for load in summary["loads"].as_array().unwrap() {
        assert_eq!(load["pairs"].as_array().unwrap().len(), 6, "each door against each other");
        for door in load["doors"].as_array().unwrap() {
            // An id alone is 36 bytes, and a receipt says it again.
            assert!(door["bytes_sent"]["median"].as_f64().unwrap() > 36.0, "{door}");
            assert!(door["bytes_received"]["median"].as_f64().unwrap() > 36.0, "{door}");
            assert!(door["resident_mb"]["median"].as_f64().unwrap() > 1.0, "{door}");
        }
    }

    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for part in ["REST against gRPC, 300/s", "At 300 votes a second", "As many votes as a door takes", "does not show"]
    {
        assert!(report.contains(part), "{part} is in the report:\n{report}");
    }
    for plot in ["latency-cdf.svg", "latency-by-rate.svg"] {
        let svg = fs::read_to_string(out.join(plot)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{plot}");
        for door in ["gRPC", "gRPC stream", "REST", "REST batch"] {
            assert!(svg.contains(door), "{plot} names {door}");
        }
    }

    // The votes were real: those of the warm-up are counted beside what was measured.
    system.wait_until_counted();
    assert!(system.total("bands") > acknowledged);
}

#[test]
fn a_door_that_tells_no_cost_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"));
    let results = system.addresses.results;
    let done = compare(&system, &url(results), "none", &folder.path().join("out"));
    assert_eq!(done.status.code(), Some(1));
    let problem = String::from_utf8(done.stderr).unwrap();
    assert!(problem.contains(&results.to_string()) && problem.contains("/metrics"), "{problem}");
}

#[test]
fn doors_that_cant_be_asked_are_compared_without_their_cost() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start(&folder.path().join("data"));
    let out = folder.path().join("out");
    let done = compare(&system, "none", "none", &out);
    assert!(done.status.success(), "{done:?}");
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    for door in summary["loads"].as_array().unwrap().iter().flat_map(|load| load["doors"].as_array().unwrap()) {
        assert!(door["p50_ms"]["median"].as_f64().unwrap() > 0.0, "{door}");
        assert!(door.get("cpu_us").is_none() && door.get("resident_mb").is_none(), "{door}");
    }
    let report = fs::read_to_string(out.join("report.md")).unwrap();
    assert!(report.contains("of the doors were not measured") && !report.contains("resident MB"), "{report}");
}
