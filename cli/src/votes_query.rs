//! `ovation votes`: shows single votes from the ledger.

use std::{path::PathBuf, process::ExitCode};

use api::VotesResponse;
use clap::Args;
use client::http;
use form_urlencoded::Serializer;
use service::{program::Failure, token::ReadToken};
use votes::ContestId;

/// Show votes from the ledger, newest first
#[derive(Args)]
#[command(after_help = "Example:\n  ovation votes --name 'Pink Floyd' --limit 5")]
pub(crate) struct VotesArgs {
    /// The URL of the results service
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
    /// The maximum number of votes, up to 1000
    #[arg(long, default_value_t = 20)]
    limit: u16,
    /// A file with the read token of the service
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: VotesArgs) -> Result<ExitCode, Failure> {
    // `via=pool` bypasses the cache, so the result is current. `allow_scan` permits a slow query.
    let mut query = Serializer::new("via=pool&allow_scan=true".to_owned());
    query.append_pair("contest", args.contest.as_str()).append_pair("limit", &args.limit.to_string());
    for (key, value) in [("name", args.name), ("from", args.from), ("to", args.to)] {
        query.extend_pairs(value.map(|value| (key, value)));
    }
    let path = format!("/v1/votes?{}", query.finish());
    let authorization = ReadToken::for_command(args.token_file.as_deref())?.map(|token| token.authorization());
    let VotesResponse { votes, .. } = http::get_as(authorization.as_deref(), &args.url, &path).await?;
    if args.json {
        println!("{}", serde_json::to_string(&votes)?);
        return Ok(ExitCode::SUCCESS);
    }
    for vote in &votes {
        println!("{}  {:<6}  {}  {}", vote.accepted_at, vote.producer, vote.vote_id, vote.name);
    }
    Ok(ExitCode::SUCCESS)
}
