//! `ovation`: the whole system in one process, and the operator's commands.

mod audit;
mod client;
mod duration;
mod flood;
mod rate;
mod tally;
mod up;
mod votes_query;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use service::program::Failure;

/// Counts votes: an acknowledged vote is never lost and never counted twice.
#[derive(Parser)]
#[command(name = "ovation", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::UpArgs),
    Flood(flood::FloodArgs),
    Tally(tally::TallyArgs),
    Rate(rate::RateArgs),
    Votes(votes_query::VotesArgs),
    Audit(audit::AuditArgs),
}

fn main() -> ExitCode {
    let cli: Cli = match service::program::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Up(args) => up::run(args),
        Command::Flood(args) => on_runtime(flood::run(args)),
        Command::Tally(args) => on_runtime(tally::run(args)),
        Command::Rate(args) => on_runtime(rate::run(args)),
        Command::Votes(args) => on_runtime(votes_query::run(args)),
        Command::Audit(args) => on_runtime(audit::run(args)),
    }
}

fn on_runtime(command: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(command));
    outcome.unwrap_or_else(|failure| service::program::exit_code(Err(failure)))
}
