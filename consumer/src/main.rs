//! The program `consumer`: only counts votes.

use std::process::ExitCode;

use clap::Parser;
use consumer::Dependencies;
use serde::Serialize;
use service::{
    Config, Context,
    config::CommonFlags,
    health::Latch,
    program::{self, ProgramResult},
};
use stores::Stores;

/// The default admin port. Each program has another one, so that all programs can run on one machine.
const ADMIN_PORT: u16 = 9103;

/// Count the votes that are on the vote log
#[derive(Parser, Serialize)]
#[command(version, after_help = "Example:\n  consumer --data ovation-data")]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
}

fn main() -> ExitCode {
    let flags: Flags = match program::parse() {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    program::main(Config::load(flags.common.config.clone(), flags, ADMIN_PORT), serve)
}

async fn serve(context: Context, starting: Latch) -> ProgramResult {
    let stores = Stores::open(&context.config, &context.health)?;
    let dependencies = Dependencies::open(&context, &stores);
    let listener = consumer::listen(&stores);
    program::serve(dependencies, listener, starting, consumer::run, context.shutdown.clone()).await
}
