//! The program `grpc-producer`: the gRPC door alone.

use std::{process::ExitCode, sync::Arc};

use backends::Stores;
use clap::Parser;
use serde::Serialize;
use service::{
    Config, Context,
    config::{CommonFlags, DoorFlags},
    door::MeteredDoor,
    health::Weight,
    program::{self, Outcome},
};
use votes::{Door, DoorKind};

/// The admin port of this program, beside the others on one machine.
const ADMIN_PORT: u16 = 9102;

/// Take votes over gRPC and put them on the vote log
#[derive(Parser, Serialize)]
#[command(version, after_help = "Example:\n  grpc-producer --listen 0.0.0.0:50051 --data ovation-data")]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    before: DoorFlags,
    /// Where it listens [default: 127.0.0.1:50051]
    #[arg(long = "listen", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
}

fn main() -> ExitCode {
    let flags: Flags = match program::parse() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    program::main(Config::load(flags.common.config.clone(), flags, ADMIN_PORT), serve)
}

async fn serve(context: Context) -> Outcome {
    let Context { config, health, shutdown, starting, .. } = context;
    let contests = config.contests()?;
    let stores = Stores::open_log(&config, &health)?;
    let secret = stores.secret(&contests)?;
    let Some(queue) = shutdown.run_until_cancelled(stores.queue(Weight::Vital)).await.transpose()? else {
        return Ok(());
    };
    let door = Door::new(DoorKind::Grpc, contests, secret, Arc::clone(&queue));
    let door = MeteredDoor::new(door, config.trusted_proxies);
    let listener = program::listen("grpc", config.grpc).await?;
    drop(starting);
    let outcome = grpc_producer::run(listener, door, health, shutdown).await;
    queue.flush().await;
    Ok(outcome?)
}
