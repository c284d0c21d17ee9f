//! The program `rest-producer`: runs only the REST producer.

use std::process::ExitCode;

use clap::Parser;
use rest_producer::Dependencies;
use serde::Serialize;
use service::{
    Config, Context,
    config::{CommonFlags, ProxyFlags},
    health::Latch,
    program::{self, ProgramResult},
};
use stores::Stores;

/// The default admin port. Each program has another one, so that all programs can run on one machine.
const ADMIN_PORT: u16 = 9101;

/// Accept votes over REST and put them on the vote log
#[derive(Parser, Serialize)]
#[command(version, after_help = "Example:\n  rest-producer --listen 0.0.0.0:8000 --data ovation-data")]
struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    proxies: ProxyFlags,
    /// Address on which the producer listens [default: 127.0.0.1:8000]
    #[arg(long = "listen", value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<String>,
    /// Forward votes to the gRPC producer at this URL, like <http://127.0.0.1:50051>, instead of putting them on the
    /// vote log
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

async fn serve(context: Context, starting: Latch) -> ProgramResult {
    let dependencies = async {
        match &context.config.forward {
            Some(to) => Dependencies::forwarding(to, &context),
            None => Dependencies::open(&context, &Stores::open_log(&context.config, &context.health)?).await,
        }
    };
    let listener = program::listen("rest", context.config.rest);
    program::serve(dependencies, listener, starting, rest_producer::run, context.shutdown.clone()).await
}
