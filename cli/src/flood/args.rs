//! The flags of `ovation flood`, and the checked plan that is made of them.

use std::{fs, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use clap::{Args, Parser, ValueEnum};
use hyper::Uri;
use serde::Serialize;
use votes::ContestId;

use super::{votes::Bands, wire::Wire};
use crate::duration;

/// Each connection and each vote in flight costs memory, so a slip of the keyboard must not ask for millions.
const MOST_WORKERS: usize = 4096;

/// Casts votes at a fixed rate and measures how long each takes to be acknowledged.
///
/// The flood is an open loop: every vote has a time at which it is due, and its latency is counted from then, whatever
/// the server did to the votes before it. Votes still unsent a second after the end are not sent. One thread sends
/// all; for more than it can, run several floods.
///
/// Exit code: 0 if every vote was acknowledged, 1 if one was refused or failed, 64 for a wrong flag.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  ovation flood --protocol grpc-stream --rate 50000 --for 60s --json")]
pub(crate) struct FloodArgs {
    /// How votes are cast: one a request (rest, grpc), many a request (rest-batch), or pipelined (grpc-stream)
    #[arg(long, value_enum, default_value_t = Protocol::Rest)]
    pub(crate) protocol: Protocol,

    #[arg(
        long,
        help = "The door's address [default: http://127.0.0.1:8000 for REST, http://127.0.0.1:50051 for gRPC]"
    )]
    pub(crate) url: Option<Uri>,

    /// Connect there, whatever the URL's host is: for a name that is not in DNS, like an ingress' on a test cluster
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) connect: Option<SocketAddr>,

    /// Votes a second; 0 or `max`: as many as the server takes, each worker sending when its last vote is answered
    #[arg(long, default_value = "1000", value_name = "N|max")]
    pub(crate) rate: Rate,

    /// How long votes are sent, such as 500ms, 60s or 2m; answers are then still waited for
    #[arg(long = "for", default_value = "10s", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) length: Duration,

    /// Connections: for rest also the votes in flight, for rest-batch the batches, for grpc-stream the streams
    /// [default: rest 256, rest-batch 8, grpc 4, grpc-stream 4]
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<usize>,

    /// Votes awaiting their answer at most, over all gRPC connections [default: grpc 256, grpc-stream 4096]
    #[arg(long, value_name = "N")]
    pub(crate) in_flight: Option<usize>,

    /// Votes a batch for rest-batch, at most 10000. A batch is sent when its last vote is due, so at low rates its
    /// filling dominates the latency
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(crate) batch_size: usize,

    /// A JSON array, or lines, of {"name","album","year","rank"}, the most popular first [default: 181 bands]
    #[arg(long, value_name = "FILE")]
    pub(crate) votes: Option<PathBuf>,

    /// The contest to vote in; without it votes name none
    #[arg(long)]
    pub(crate) contest: Option<ContestId>,

    /// Who votes: nobody, somebody new each time, or one of N voters
    #[arg(long, default_value = "none", value_name = "none|random|N")]
    pub(crate) voters: Voters,

    /// A vote that failed or met 503 or UNAVAILABLE is sent again with the same `vote_id`, for that long
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) retry_for: Duration,

    /// How long a request may take, from connecting to its whole answer
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Duration,

    /// Makes the same draw of bands and voters again; vote ids are always new [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Writes the `vote_id` of each acknowledged vote as a line, at most 100 ms after its acknowledgement
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,

    /// Prints one JSON object instead of the report
    #[arg(long)]
    pub(crate) json: bool,

    /// No progress and no report, only --json's object, if asked for, and errors
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl FloodArgs {
    /// What is not said here is as on a command line that does not say it.
    pub(super) fn of(protocol: Protocol, url: Uri, rate: Rate, length: Duration) -> Self {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            flood: FloodArgs,
        }
        let Alone { flood } = Alone::parse_from(["flood"]);
        Self { protocol, url: Some(url), rate, length, quiet: true, ..flood }
    }
}

/// How votes are cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// `POST /v1/votes`, one vote each
    Rest,
    /// `POST /v1/votes/batch`, `--batch-size` votes each
    RestBatch,
    /// `VoteService.CastVote`, one vote each
    Grpc,
    /// `VoteService.CastVotes`, a pipeline of votes
    GrpcStream,
}

impl Protocol {
    /// Whether it is spoken over HTTP/1.1.
    pub(crate) fn is_rest(self) -> bool {
        matches!(self, Self::Rest | Self::RestBatch)
    }

    /// Whether each vote is a request of its own.
    pub(crate) fn is_single(self) -> bool {
        matches!(self, Self::Rest | Self::Grpc)
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rest => "REST",
            Self::RestBatch => "REST batch",
            Self::Grpc => "gRPC",
            Self::GrpcStream => "gRPC stream",
        }
    }
}

/// How many votes are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// An open loop of that many votes a second.
    PerSecond(f64),
    /// A closed loop: the next vote is due when the last is answered.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(0.0) => Ok(Self::Max),
            // An f64 still counts single votes at that rate for months.
            Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(Self::PerSecond(rate)),
            _ => Err("a rate is a number of votes a second up to 1000000000, or `max`".to_owned()),
        }
    }
}

/// Who votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voters {
    /// Votes name no voter.
    Nobody,
    /// Each vote names a voter of its own.
    Random,
    /// Each vote names one of that many voters.
    Of(u64),
}

impl FromStr for Voters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::Nobody),
            "random" => Ok(Self::Random),
            _ => match text.parse() {
                Ok(voters) if voters > 0 => Ok(Self::Of(voters)),
                _ => Err("voters are `none`, `random` or a whole number above 0".to_owned()),
            },
        }
    }
}

/// What a flood does: flags that fit together, with their defaults filled in.
pub(super) struct Plan {
    pub(super) protocol: Protocol,
    pub(super) url: Uri,
    pub(super) rate: Rate,
    pub(super) length: Duration,
    pub(super) connections: usize,
    /// Votes in flight over all connections; what it means without gRPC follows from the connections.
    pub(super) in_flight: usize,
    pub(super) batch_size: usize,
    pub(super) bands: Arc<Bands>,
    pub(super) voters: Voters,
    pub(super) retry_for: Duration,
    pub(super) timeout: Duration,
    pub(super) seed: u64,
    /// What goes over its connections.
    pub(super) wire: Arc<Wire>,
}

impl TryFrom<&FloodArgs> for Plan {
    /// A sentence naming the flag.
    type Error = String;

    fn try_from(args: &FloodArgs) -> Result<Self, String> {
        let protocol = args.protocol;
        let (address, connections, in_flight) = match protocol {
            Protocol::Rest => ("http://127.0.0.1:8000", 256, None),
            Protocol::RestBatch => ("http://127.0.0.1:8000", 8, None),
            Protocol::Grpc => ("http://127.0.0.1:50051", 4, Some(256)),
            Protocol::GrpcStream => ("http://127.0.0.1:50051", 4, Some(4096)),
        };
        let connections = at_most("--connections", args.connections.unwrap_or(connections), MOST_WORKERS)?;
        if in_flight.is_none() && args.in_flight.is_some() {
            return Err("--in-flight is for grpc and grpc-stream; with REST --connections says it".to_owned());
        }
        let most_in_flight = if protocol == Protocol::GrpcStream { 1 << 20 } else { MOST_WORKERS };
        let in_flight = match args.in_flight.or(in_flight) {
            // Less than one for each connection would leave some without work.
            Some(in_flight) => at_most("--in-flight", in_flight, most_in_flight)?.max(connections),
            None => connections,
        };
        if args.length.is_zero() {
            return Err("--for must be longer than nothing".to_owned());
        }
        if args.timeout.is_zero() {
            return Err("--timeout must be longer than nothing".to_owned());
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
            url: check_url(args.url.clone().unwrap_or_else(|| Uri::from_static(address)), protocol)?,
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
            wire: Arc::new(Wire::new(args.connect)),
        })
    }
}

fn at_most(flag: &str, number: usize, most: usize) -> Result<usize, String> {
    if (1..=most).contains(&number) { Ok(number) } else { Err(format!("{flag} must be 1 to {most}")) }
}

pub(crate) fn check_url(url: Uri, protocol: Protocol) -> Result<Uri, String> {
    let is_rest = protocol.is_rest();
    if url.scheme_str() != Some("http") || url.host().is_none_or(str::is_empty) {
        return Err(format!("--url {url} must be like http://host:port; other schemes are not spoken"));
    }
    if url.query().is_some() || (!is_rest && url.path() != "/") {
        return Err(format!("--url {url} must be only http://host:port{}", if is_rest { "/path" } else { "" }));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_zero_is_as_fast_as_possible() {
        assert_eq!("0".parse(), Ok(Rate::Max));
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        for wrong in ["-1", "fast", "", "inf", "NaN"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn voters_are_none_random_or_so_many() {
        assert_eq!("none".parse(), Ok(Voters::Nobody));
        assert_eq!("random".parse(), Ok(Voters::Random));
        assert_eq!("12".parse(), Ok(Voters::Of(12)));
        assert!("0".parse::<Voters>().is_err());
        assert!("some".parse::<Voters>().is_err());
    }

    #[test]
    fn a_url_is_plain_http_and_only_rest_has_a_path() {
        let check = |url: &'static str, protocol| check_url(Uri::from_static(url), protocol).is_ok();
        assert!(check("http://door:8000/ovation", Protocol::Rest));
        assert!(check("http://[::1]:50051", Protocol::GrpcStream));
        assert!(!check("http://door:50051/path", Protocol::Grpc));
        assert!(!check("https://door", Protocol::Rest));
        assert!(!check("door:8000", Protocol::Rest));
        assert!(!check("http://door/?a=b", Protocol::Rest));
    }
}
