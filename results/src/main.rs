//! The program `results` serves the live page, the tallies, the queries and the imports.

use std::process::ExitCode;

use clap::Parser;
use results::{Dependencies, Listeners};
use serde::Serialize;
use service::{
    Config, Context,
    config::{CommonFlags, ReadFlags},
    health::{Criticality, Latch},
    program::{self, ProgramResult},
};
use stores::Stores;

/// The default admin port. Each program has a different default, so all programs can run on one machine.
const ADMIN_PORT: u16 = 9104;

/// Serve the live page, the tallies, and queries about votes and datasets
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
    /// The address to listen on for HTTP [default: 127.0.0.1:8080]
    #[arg(long = "listen", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<String>,
    /// The address to listen on for gRPC [default: 127.0.0.1:50052]
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

async fn serve(context: Context, starting: Latch) -> ProgramResult {
    // Opening the stores may create a folder, so an invalid token must be reported first.
    context.config.read_token()?;
    let stores = Stores::open(&context.config, &context.health)?;
    let dependencies = Dependencies::open(&context, &stores, Criticality::Required);
    let listeners = Listeners::bind(&context.config);
    program::serve(dependencies, listeners, starting, results::run, context.shutdown.clone()).await
}
