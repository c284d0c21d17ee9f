//! The numbers of votes per period, which `ovation rate` prints, are complete.
#![allow(clippy::unwrap_used, missing_docs)]

use tests::{Addresses, System, json, run};

#[test]
fn the_periods_of_every_length_sum_to_the_accepted_votes() {
    let folder = tempfile::tempdir().unwrap();
    let system = System::start_with(&folder.path().join("data"), Addresses::free(), &[]);
    let url = |address: std::net::SocketAddr| format!("http://{address}");
    let rest = url(system.addresses.rest);
    let flood = run(&["flood", "--protocol", "rest-batch", "--url", &rest, "--rate", "5000", "--for", "10s", "--json"]);
    let accepted = json(&flood)["acknowledged"].as_u64().unwrap();
    assert!(accepted > 10_000, "{accepted}");
    system.wait_until_counted();
    let results = url(system.addresses.results);
    for every in ["10ms", "1s", "1m"] {
        let periods = json(&run(&["rate", "--url", &results, "--every", every, "--last", "10m", "--json"]));
        let periods = periods.as_array().unwrap();
        let votes = periods.iter().map(|period| period["votes"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(votes, accepted, "by {every}");
        // Each period is listed once, and starts at a multiple of its length.
        let millis = match every {
            "10ms" => 10,
            "1s" => 1_000,
            _ => 60_000,
        };
        let starts: Vec<i64> = periods.iter().map(|period| period["start"].as_i64().unwrap()).collect();
        assert!(starts.iter().all(|start| start % millis == 0) && starts.is_sorted_by(|a, b| a < b), "by {every}");
    }
}
