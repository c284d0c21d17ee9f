//! `ovation votes`: single votes from the book.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Deserialize;
use votes::ContestId;

use crate::{Failure, client};

/// Show votes from the book, newest first
#[derive(Args)]
#[command(after_help = "Example:\n  ovation votes --name 'Pink Floyd' --limit 5")]
pub(crate) struct VotesArgs {
    /// The results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The contest
    #[arg(long, default_value = ContestId::DEFAULT)]
    contest: ContestId,
    /// Only votes for this band
    #[arg(long)]
    name: Option<String>,
    /// Only votes accepted at or after this time, like 2026-11-21T20:00:00Z
    #[arg(long)]
    from: Option<String>,
    /// Only votes accepted before this time
    #[arg(long)]
    to: Option<String>,
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// A file with the token that the service asks for
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Answer {
    votes: Vec<serde_json::Value>,
}

pub(crate) async fn run(args: VotesArgs) -> Result<ExitCode, Failure> {
    // Whoever has a console may wait, and wants what is there now.
    let mut path = format!("/v1/votes?via=pool&allow_scan=true&contest={}&limit={}", args.contest, args.limit);
    for (key, value) in [("name", args.name), ("from", args.from), ("to", args.to)] {
        if let Some(value) = value {
            path = format!("{path}&{key}={}", client::encode(&value));
        }
    }
    let Answer { votes } = client::get_as(args.token_file.as_deref(), &args.url, &path).await?;
    if args.json {
        println!("{}", serde_json::to_string(&votes)?);
        return Ok(ExitCode::SUCCESS);
    }
    for vote in &votes {
        let field = |key: &str| vote.get(key).and_then(serde_json::Value::as_str).unwrap_or("-");
        println!("{}  {:<6}  {}  {}", field("accepted_at"), field("door"), field("vote_id"), field("name"));
    }
    Ok(ExitCode::SUCCESS)
}
