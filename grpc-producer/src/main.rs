//! The program `grpc-producer`: runs only the gRPC producer.

use std::process::ExitCode;

use clap::Parser;
use grpc_producer::Dependencies;
use serde::Serialize;
use service::{
    Config, Context,
    config::{CommonFlags, ProxyFlags},
    health::Latch,
    program::{self, ProgramResult},
};
use stores::Stores;

/// The default admin port. Each program has another one, so that all programs can run on one machine.
const ADMIN_PORT: u16 = 9102;

/// Accept votes over gRPC and put them on the vote log
#[derive(Parser, Serialize)]
#[command(version, after_help = "Example:\n  grpc-producer --listen 0.0.0.0:50051 --data ovation-data")]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    proxies: ProxyFlags,
    /// Address on which the producer listens [default: 127.0.0.1:50051]
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

async fn serve(context: Context, starting: Latch) -> ProgramResult {
    let stores = Stores::open_log(&context.config, &context.health)?;
    let dependencies = Dependencies::open(&context, &stores);
    let listener = program::listen("grpc", context.config.grpc);
    program::serve(dependencies, listener, starting, grpc_producer::run, context.shutdown.clone()).await
}
