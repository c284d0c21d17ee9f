//! The flags of `ovation compare`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use hyper::Uri;
use votes::parse_duration;

use crate::flood::{Protocol, Rate};

/// Compare the producers under the same load: latency, throughput, CPU, memory and bytes per vote
///
/// Every producer is measured several times, in rounds with alternating order. So if the machine becomes slower, this
/// affects all producers. Writes report.md, measurements.csv and two plots. Ctrl-C ends the measurements early; the
/// report then has those so far.
///
/// Exit code: 0 if the report was written, and at each fixed rate all sent votes were acknowledged; 1 if not; 64 for an
/// invalid command line.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  ovation compare --rates 1000,5000 --rounds 5 --seconds 5s --out comparison")]
pub struct CompareArgs {
    /// The URL of the REST producer
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    pub(super) rest: Uri,
    /// The URL of the gRPC producer
    #[arg(long, default_value = "http://127.0.0.1:50051", value_name = "URL")]
    pub(super) grpc: Uri,
    /// The admin port of the REST producer, for its CPU and memory; port 9100 for `ovation up`. Use `none` if it is not
    /// reachable, or if a proxy distributes the votes to several processes: the report then has neither CPU nor memory
    #[arg(long, default_value = "http://127.0.0.1:9101", value_name = "URL")]
    pub(super) rest_admin: String,
    /// The admin port of the gRPC producer, or `none`
    #[arg(long, default_value = "http://127.0.0.1:9102", value_name = "URL")]
    pub(super) grpc_admin: String,
    /// The producers, each with the way in which votes are sent to it
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "grpc,grpc-stream,rest,rest-batch",
        value_name = "PRODUCER,..."
    )]
    pub(super) producers: Vec<Protocol>,
    /// Votes per second; `max` is a closed loop: as many votes as the producer can acknowledge
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,max", value_name = "RATE,...")]
    pub(super) rates: Vec<Rate>,
    /// The number of rounds; each round measures every producer twice, in alternating order
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: u32,
    /// The length of one measurement
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) seconds: Duration,
    /// The pause before each measurement, in which the consumers count the earlier votes
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) pause: Duration,
    /// The folder of the report
    #[arg(long, default_value = "comparison", value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}
