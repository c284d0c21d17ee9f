//! The flags of `ovation flood`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser};
use hyper::Uri;
use votes::{ContestId, parse_duration};

use super::{protocol::Protocol, rate::Rate, votes::Voters};

/// Cast votes at a fixed rate, and measure the time until each vote is acknowledged
///
/// The flood is an open loop: every vote has a time at which it is due, and its latency is measured from that time,
/// even if earlier votes were delayed. Votes that are still unsent a second after the end are not sent. One thread
/// sends all votes. If this thread is too slow, run several floods.
///
/// Exit code: 0 if every vote that was sent was acknowledged; 1 if a vote was refused or failed, or if the file of
/// receipts is incomplete; 64 for an invalid command line.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  ovation flood --protocol grpc-stream --rate 50000 --for 60s --json")]
pub struct FloodArgs {
    /// How votes are cast: one per request (rest, grpc), many per request (rest-batch), or pipelined (grpc-stream)
    #[arg(long, value_enum, default_value_t = Protocol::Rest)]
    pub(crate) protocol: Protocol,

    #[arg(
        long,
        help = "The producer's address [default: http://127.0.0.1:8000 for REST, http://127.0.0.1:50051 for gRPC]"
    )]
    pub(crate) url: Option<Uri>,

    /// Connect to this address instead of the host in the URL, for a host name that is not in DNS (for example, an
    /// ingress of a test cluster)
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) connect: Option<SocketAddr>,

    /// Votes per second; 0 or `max` is a closed loop: each worker sends its next vote when it has the response to its
    /// previous vote
    #[arg(long, default_value = "1000", value_name = "N|max")]
    pub(crate) rate: Rate,

    /// How long votes are sent, for example 500ms, 60s or 2m; the flood then waits for the last responses
    #[arg(long = "for", default_value = "10s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) length: Duration,

    /// Number of connections; this is also the maximum number of votes in flight for rest, of batches in flight for
    /// rest-batch, and of streams for grpc-stream
    /// [default: rest 256, rest-batch 8, grpc 4, grpc-stream 4]
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<usize>,

    /// Maximum number of votes in flight over all gRPC connections [default: grpc 256, grpc-stream 4096]
    #[arg(long, value_name = "N")]
    pub(crate) in_flight: Option<usize>,

    /// Votes per batch of rest-batch, at most 10000. A batch is sent when its last vote is due, so at low rates the
    /// time to fill it dominates the latency
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub(crate) batch_size: usize,

    /// A file with the bands to vote for: a JSON array, or JSON lines, of {"name","album","year","rank"}, the most
    /// popular first [default: 181 bands]
    #[arg(long, value_name = "FILE")]
    pub(crate) votes: Option<PathBuf>,

    /// The contest to vote in [default: the votes name no contest]
    #[arg(long)]
    pub(crate) contest: Option<ContestId>,

    /// The voter of each vote: none, a new one each time (random), or one of N voters
    #[arg(long, default_value = "none", value_name = "none|random|N")]
    pub(crate) voters: Voters,

    /// For how long a vote is sent again, with the same `vote_id`, if it failed or the response was 503, 429,
    /// UNAVAILABLE or `RESOURCE_EXHAUSTED`
    #[arg(long, default_value = "0s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) retry_for: Duration,

    /// The maximum time for a request, from connecting to the end of the response
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    /// The seed of the random bands and voters: the same seed gives the same bands and voters. Vote ids are always new
    /// [default: random]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Write the `vote_id` of each acknowledged vote to this file, one per line, at most 100 ms after the
    /// acknowledgement
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,

    /// Print one JSON object instead of the report
    #[arg(long)]
    pub(crate) json: bool,

    /// Print no progress and no report, only errors and the object of --json
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl FloodArgs {
    /// Returns the flags for a flood that is quiet and has these values. All other flags have their defaults.
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
