//! Runs the flood of `ovation up --demo`, which continues until it is stopped.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ::votes::ContestId;
use hyper::Uri;
use tokio::join;
use tokio_util::sync::CancellationToken;

use super::{
    plan::Plan,
    protocol::Protocol,
    rate::Rate,
    votes::{Bands, Voters},
    workers::flood,
};

/// Casts votes over both producers, each at half of `rate` votes per second, until `stop`. It ignores refusals and
/// failures.
///
/// The votes are for the built-in bands, in `contest`, and name no voter.
pub async fn demo(rest: SocketAddr, grpc: SocketAddr, rate: f64, contest: Option<&ContestId>, stop: CancellationToken) {
    if rate.is_nan() || rate <= 0.0 {
        return stop.cancelled().await;
    }
    let bands = Arc::new(Bands::built_in(contest));
    let at = |protocol, address, connections, in_flight| Plan {
        protocol,
        url: url_of(address),
        rate: Rate::PerSecond(rate / 2.0),
        // Each flood takes a minute, and then another one begins. Votes that a flood could not send, because the server
        // or the machine paused, are dropped.
        length: Duration::from_mins(1),
        connections,
        in_flight,
        batch_size: 1,
        bands: Arc::clone(&bands),
        voters: Voters::None,
        retry_for: Duration::ZERO,
        timeout: Duration::from_secs(5),
        seed: rand::random(),
        group: Arc::default(),
    };
    while !stop.is_cancelled() {
        join!(
            flood(at(Protocol::Rest, rest, 16, 16), None, false, stop.clone()),
            flood(at(Protocol::Grpc, grpc, 1, 64), None, false, stop.clone()),
        );
    }
}

/// Returns the URL at which this machine reaches a listener. If it listens on all addresses, the URL has the loopback
/// address.
pub(super) fn url_of(address: SocketAddr) -> Uri {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port())).parse().expect("a socket address is an authority")
}
