//! The program `consumer`: counting alone.

use std::process::ExitCode;

use backends::Stores;
use clap::Parser;
use serde::Serialize;
use service::{
    Config, Context,
    config::CommonFlags,
    program::{self, Outcome},
};

/// The admin port of this program, beside the others on one machine.
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

async fn serve(context: Context) -> Outcome {
    let Context { config, health, shutdown, starting, .. } = context;
    let stores = Stores::open(&config, &health)?;
    let open = consumer::open(&config, &stores);
    let Some((feed, counter, keeping)) = shutdown.run_until_cancelled(open).await.transpose()? else { return Ok(()) };
    Ok(consumer::run(feed, counter, keeping, health, shutdown, move || drop(starting)).await?)
}
