//! The program `rest-producer`: the REST door alone.

use std::{process::ExitCode, sync::Arc};

use backends::Stores;
use clap::Parser;
use rest_producer::Forwarder;
use serde::Serialize;
use service::{
    Config, Context,
    config::{CommonFlags, DoorFlags, GrpcEndpoint},
    door::MeteredDoor,
    health::Weight,
    program::{self, Outcome},
};
use votes::{Door, DoorKind};

/// The admin port of this program, beside the others on one machine.
const ADMIN_PORT: u16 = 9101;

/// Take votes over REST and put them on the vote log
#[derive(Parser, Serialize)]
#[command(version, after_help = "Example:\n  rest-producer --listen 0.0.0.0:8000 --data ovation-data")]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    before: DoorFlags,
    /// Where it listens [default: 127.0.0.1:8000]
    #[arg(long = "listen", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<String>,
    /// Pass votes on to the gRPC producer at this URL, like <http://127.0.0.1:50051>, instead of putting them on the vote log
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<String>,
}

fn main() -> ExitCode {
    let flags: Flags = match program::parse() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    program::main(Config::load(flags.common.config.clone(), flags, ADMIN_PORT), serve)
}

async fn serve(context: Context) -> Outcome {
    if let Some(to) = context.config.forward.clone() {
        return serve_forwarding(context, &to).await;
    }
    let Context { config, health, shutdown, starting, .. } = context;
    let contests = config.contests()?;
    let stores = Stores::open_log(&config, &health)?;
    let secret = stores.secret(&contests)?;
    let Some(queue) = shutdown.run_until_cancelled(stores.queue(Weight::Vital)).await.transpose()? else {
        return Ok(());
    };
    let door = Door::new(DoorKind::Rest, contests, secret, Arc::clone(&queue));
    let door = MeteredDoor::new(door, config.trusted_proxies);
    let outcome = rest_producer::run(config.rest, door, shutdown, move |_| drop(starting)).await;
    queue.flush().await;
    Ok(outcome?)
}

/// Contests, secret and stores are the gRPC producer's; here none is opened.
async fn serve_forwarding(context: Context, to: &GrpcEndpoint) -> Outcome {
    let Context { config, health, shutdown, starting, .. } = context;
    let forwarder = Forwarder::start(to, config.queue_votes, &health)?;
    let door = MeteredDoor::new(Door::forwarding(DoorKind::Grpc, forwarder), config.trusted_proxies);
    Ok(rest_producer::run(config.rest, door, shutdown, move |_| drop(starting)).await?)
}
