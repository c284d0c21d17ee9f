//! The plan of a flood: its checked flags, with defaults for the flags that were not given.

use std::{fs, sync::Arc, time::Duration};

use hyper::Uri;

use super::{
    args::FloodArgs,
    protocol::{Protocol, check_url},
    rate::Rate,
    votes::{Bands, Voters},
};
use crate::connections::ConnectionGroup;

/// The maximum number of connections and, except on streams, of votes in flight. Each costs memory, so the flood
/// refuses a number that is most likely a typing error.
const MAX_WORKERS: usize = 4096;

/// The checked flags of a flood.
pub(super) struct Plan {
    pub(super) protocol: Protocol,
    pub(super) url: Uri,
    pub(super) rate: Rate,
    pub(super) length: Duration,
    pub(super) connections: usize,
    /// The maximum number of votes in flight over all connections. Over REST, it is the number of connections.
    pub(super) in_flight: usize,
    pub(super) batch_size: usize,
    pub(super) bands: Arc<Bands>,
    pub(super) voters: Voters,
    pub(super) retry_for: Duration,
    pub(super) timeout: Duration,
    pub(super) seed: u64,
    /// The group of all connections, which counts their bytes.
    pub(super) group: Arc<ConnectionGroup>,
}

impl TryFrom<&FloodArgs> for Plan {
    /// A text that names the invalid flag.
    type Error = String;

    fn try_from(args: &FloodArgs) -> Result<Self, String> {
        let protocol = args.protocol;
        let (address, connections, in_flight) = match protocol {
            Protocol::Rest => ("http://127.0.0.1:8000", 256, None),
            Protocol::RestBatch => ("http://127.0.0.1:8000", 8, None),
            Protocol::Grpc => ("http://127.0.0.1:50051", 4, Some(256)),
            Protocol::GrpcStream => ("http://127.0.0.1:50051", 4, Some(4096)),
        };
        let connections = at_most("--connections", args.connections.unwrap_or(connections), MAX_WORKERS)?;
        if in_flight.is_none() && args.in_flight.is_some() {
            return Err("--in-flight is for grpc and grpc-stream; over REST, set --connections instead".to_owned());
        }
        let max_in_flight = if protocol == Protocol::GrpcStream { 1 << 20 } else { MAX_WORKERS };
        let in_flight = match args.in_flight.or(in_flight) {
            // Each connection needs at least one vote in flight.
            Some(in_flight) => at_most("--in-flight", in_flight, max_in_flight)?.max(connections),
            None => connections,
        };
        if args.length.is_zero() {
            return Err("--for must be longer than 0".to_owned());
        }
        if args.timeout.is_zero() {
            return Err("--timeout must be longer than 0".to_owned());
        }
        let bands = match &args.votes {
            None => Bands::built_in(args.contest.as_ref()),
            Some(file) => fs::read(file)
                .map_err(|error| error.to_string())
                .and_then(|json| Bands::from_json(&json, args.contest.as_ref()))
                .map_err(|problem| format!("--votes {}: {problem}", file.display()))?,
        };
        Ok(Self {
            protocol,
            url: check_url("--url", args.url.clone().unwrap_or_else(|| Uri::from_static(address)), protocol)?,
            rate: args.rate,
            length: args.length,
            connections,
            in_flight,
            batch_size: at_most("--batch-size", args.batch_size, votes::MAX_BATCH_VOTES)?,
            bands: Arc::new(bands),
            voters: args.voters,
            retry_for: args.retry_for,
            timeout: args.timeout,
            seed: args.seed.unwrap_or_else(rand::random),
            group: Arc::new(ConnectionGroup::new(args.connect)),
        })
    }
}

fn at_most(flag: &str, number: usize, max: usize) -> Result<usize, String> {
    if (1..=max).contains(&number) { Ok(number) } else { Err(format!("{flag} must be 1 to {max}")) }
}
