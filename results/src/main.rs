//! The program `results`: the live page and the read side alone.

use std::{process::ExitCode, sync::Arc};

use backends::Stores;
use clap::Parser;
use results::{Limits, Sources};
use serde::Serialize;
use service::{
    Config, Context,
    config::{CommonFlags, ReadFlags},
    health::Weight,
    program::{self, Outcome},
};
use tokio::try_join;
use votes::{Door, DoorKind};

/// The admin port of this program, beside the others on one machine.
const ADMIN_PORT: u16 = 9104;

/// Serve the live page, the tallies and the vote book
#[derive(Parser, Serialize)]
#[command(
    version,
    after_help = "Example:\n  results --listen 0.0.0.0:8080 --grpc 0.0.0.0:50052 --read-token-file token --data ovation-data"
)]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    read: ReadFlags,
    /// Where it listens for HTTP [default: 127.0.0.1:8080]
    #[arg(long = "listen", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<String>,
    /// Where it listens for gRPC [default: 127.0.0.1:50052]
    #[arg(long = "grpc", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results_grpc: Option<String>,
}

fn main() -> ExitCode {
    let flags: Flags = match program::parse() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    program::main(Config::load(flags.common.config.clone(), flags, ADMIN_PORT), serve)
}

async fn serve(context: Context) -> Outcome {
    let Context { config, health, metrics, shutdown, starting } = context;
    let (contests, token) = (config.contests()?, config.read_token()?);
    let stores = Stores::open(&config, &health)?;
    let secret = stores.secret(&contests)?;
    let open = async {
        try_join!(
            stores.tallies(Weight::Vital),
            stores.reading(Weight::Helpful),
            stores.importing(Weight::Helpful),
            stores.queue(Weight::Helpful),
            stores.reader(Weight::Helpful)
        )
    };
    let opened = Box::pin(shutdown.run_until_cancelled(open)).await.transpose()?;
    let Some((tallies, reading, importing, queue, feed)) = opened else { return Ok(()) };
    metrics.collect(results::standings(Arc::clone(&contests), Arc::clone(&tallies)));
    let door = Door::new(DoorKind::Import, Arc::clone(&contests), secret, Arc::clone(&queue));
    let sources = Sources { contests, tallies, reading, feed, importing, door, token };
    let limits = Limits::of(&config);
    let grpc = program::listen("results_grpc", config.results_grpc).await?;
    let outcome = results::run_with(limits, config.results, grpc, sources, shutdown, move |_| drop(starting)).await;
    queue.flush().await;
    Ok(outcome?)
}
