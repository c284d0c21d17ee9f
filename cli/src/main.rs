//! `ovation`: runs the whole system in one process, and has the commands for operators.

mod audit;
mod check;
mod dead_letters;
mod import;
mod interrupt;
mod rate;
mod replay;
mod stats;
mod tally;
mod up;
mod votes_query;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use load::{compare, flood, study};
use service::program::Failure;

use self::interrupt::stop_on_interrupt;

/// Counts votes: an acknowledged vote is never lost and never counted twice.
#[derive(Parser)]
#[command(name = "ovation", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(Box<up::UpArgs>),
    Flood(Box<flood::FloodArgs>),
    Compare(Box<compare::CompareArgs>),
    Study(Box<study::StudyArgs>),
    Check(check::CheckArgs),
    Tally(tally::TallyArgs),
    Rate(rate::RateArgs),
    Stats(stats::StatsArgs),
    Votes(votes_query::VotesArgs),
    Import(import::ImportArgs),
    Audit(audit::AuditArgs),
    Replay(replay::ReplayArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
}

fn main() -> ExitCode {
    let cli: Cli = match service::program::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match cli.command {
        Command::Up(args) => up::run(*args),
        Command::Flood(args) => on_runtime(async { Ok(flood::run(*args, stop_on_interrupt()).await) }),
        Command::Compare(args) => on_runtime(async { compare::run(*args, stop_on_interrupt()).await }),
        Command::Study(args) => on_runtime(async { study::run(*args, stop_on_interrupt()).await }),
        Command::Check(args) => on_runtime(check::run(args)),
        Command::Tally(args) => on_runtime(tally::run(args)),
        Command::Rate(args) => on_runtime(async { rate::run(args, stop_on_interrupt()).await }),
        Command::Stats(args) => on_runtime(async { stats::run(args, stop_on_interrupt()).await }),
        Command::Votes(args) => on_runtime(votes_query::run(args)),
        Command::Import(args) => on_runtime(import::run(args)),
        Command::Audit(args) => on_runtime(audit::run(args)),
        Command::Replay(args) => on_runtime(replay::run(args)),
        Command::DeadLetters(args) => on_runtime(dead_letters::run(args)),
    }
}

fn on_runtime(command: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(command));
    outcome.unwrap_or_else(|failure| service::program::exit_code(Err(failure)))
}
