//! Promises that only a caller within the program can ask for: stopping, and the demonstration.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/fake/mod.rs"]
mod fake;

use std::{str::FromStr, time::Duration};

use serde_json::Value;
use tokio::runtime::Runtime;

use self::fake::{Act, FakeDoor};
use super::*;

fn plan(protocol: Protocol, door: &FakeDoor) -> Plan {
    Plan {
        protocol,
        url: Uri::from_str(&door.url()).unwrap(),
        rate: Rate::Max,
        length: Duration::from_hours(1),
        connections: 2,
        in_flight: 8,
        batch_size: 10,
        bands: Arc::new(Bands::built_in(None)),
        voters: Voters::Nobody,
        retry_for: Duration::from_hours(1),
        timeout: Duration::from_mins(1),
        seed: 1,
        wire: Arc::default(),
    }
}

#[test]
fn a_stopped_flood_ends_soon_and_every_vote_has_its_outcome() {
    let runtime = Runtime::new().unwrap();
    for protocol in [Protocol::Rest, Protocol::RestBatch, Protocol::Grpc, Protocol::GrpcStream] {
        // Some are in a pause between attempts when it is stopped.
        let behaviour =
            |arrival: &fake::Arrival| if arrival.number.is_multiple_of(7) { Act::RefuseForNow } else { Act::Accept };
        let is_rest = matches!(protocol, Protocol::Rest | Protocol::RestBatch);
        let door = if is_rest { FakeDoor::rest(behaviour) } else { FakeDoor::grpc(behaviour) };
        let stop = CancellationToken::new();
        let running = runtime.spawn(flood(plan(protocol, &door), None, false, stop.clone()));
        door.wait_for_arrivals(200);
        stop.cancel();
        let report = runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), running).await });
        let report: Value = serde_json::to_value(report.unwrap().unwrap()).unwrap();
        let count = |name: &str| report[name].as_u64().unwrap();
        assert_eq!(count("acknowledged") + count("refused") + count("failed"), count("sent"), "{report}");
        assert_eq!(count("failed"), 0, "{report}");
        assert!(report["seconds"].as_f64().unwrap() < 60.0, "{report}");
    }
}

#[test]
fn the_demonstration_votes_at_both_doors_whatever_they_do() {
    let behaviour = |arrival: &fake::Arrival| match arrival.number % 3 {
        0 => Act::RefuseForNow,
        1 => Act::Refuse,
        _ => Act::Accept,
    };
    let (mut rest, grpc) = (FakeDoor::rest(behaviour), FakeDoor::grpc(behaviour));
    let stop = CancellationToken::new();
    let runtime = Runtime::new().unwrap();
    let running = runtime.spawn({
        let (rest, grpc, stop) = (rest.address, grpc.address, stop.clone());
        async move { demo(rest, grpc, 1000.0, None, stop).await }
    });
    rest.wait_for_arrivals(50);
    grpc.wait_for_arrivals(50);
    rest.crash();
    let before = rest.arrivals().len();
    rest.reopen();
    rest.wait_for_arrivals(before + 50);
    stop.cancel();
    runtime.block_on(async { tokio::time::timeout(Duration::from_mins(1), running).await }).unwrap().unwrap();
}

#[test]
fn an_address_to_listen_anywhere_is_reached_here() {
    assert_eq!(url_of("0.0.0.0:8000".parse().unwrap()), "http://127.0.0.1:8000/");
    assert_eq!(url_of("[::]:8000".parse().unwrap()), "http://[::1]:8000/");
    assert_eq!(url_of("10.0.0.1:8000".parse().unwrap()), "http://10.0.0.1:8000/");
}
