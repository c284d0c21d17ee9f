//! Tests that need private items of the crate: of stopping a flood, and of the demo.

#![allow(clippy::unwrap_used)]

#[path = "../../tests/fake/mod.rs"]
mod fake;

use std::{str::FromStr, sync::Arc, time::Duration};

use hyper::Uri;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use self::fake::{FakeProducer, Reaction};
use super::{
    demo::{demo, url_of},
    plan::Plan,
    protocol::Protocol,
    rate::Rate,
    votes::{Bands, Voters},
    workers::flood,
};

fn plan(protocol: Protocol, producer: &FakeProducer) -> Plan {
    Plan {
        protocol,
        url: Uri::from_str(&producer.url()).unwrap(),
        rate: Rate::Max,
        length: Duration::from_hours(1),
        connections: 2,
        in_flight: 8,
        batch_size: 10,
        bands: Arc::new(Bands::built_in(None)),
        voters: Voters::None,
        retry_for: Duration::from_hours(1),
        timeout: Duration::from_mins(1),
        seed: 1,
        group: Arc::default(),
    }
}

#[test]
fn a_stopped_flood_ends_soon_and_every_vote_has_an_outcome() {
    let runtime = Runtime::new().unwrap();
    for protocol in [Protocol::Rest, Protocol::RestBatch, Protocol::Grpc, Protocol::GrpcStream] {
        // Some votes wait for their next attempt when the flood is stopped.
        let behaviour = |arrival: &fake::Arrival| {
            if arrival.number.is_multiple_of(7) { Reaction::RefuseTemporarily } else { Reaction::Accept }
        };
        let is_rest = matches!(protocol, Protocol::Rest | Protocol::RestBatch);
        let producer = if is_rest { FakeProducer::rest(behaviour) } else { FakeProducer::grpc(behaviour) };
        let stop = CancellationToken::new();
        let running = runtime.spawn(flood(plan(protocol, &producer), None, false, stop.clone()));
        producer.wait_for_arrivals(200);
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
fn the_demo_continues_on_both_producers_despite_refusals_and_a_crash() {
    let behaviour = |arrival: &fake::Arrival| match arrival.number % 3 {
        0 => Reaction::RefuseTemporarily,
        1 => Reaction::Refuse,
        _ => Reaction::Accept,
    };
    let (mut rest, grpc) = (FakeProducer::rest(behaviour), FakeProducer::grpc(behaviour));
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
fn a_listener_on_all_addresses_is_reached_over_loopback() {
    assert_eq!(url_of("0.0.0.0:8000".parse().unwrap()), "http://127.0.0.1:8000/");
    assert_eq!(url_of("[::]:8000".parse().unwrap()), "http://[::1]:8000/");
    assert_eq!(url_of("10.0.0.1:8000".parse().unwrap()), "http://10.0.0.1:8000/");
}
