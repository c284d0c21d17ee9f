//! `ovation check`: whether a vote over each door is counted.

use std::{future::Future, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use proto::v1::{CastVoteRequest, vote_service_client::VoteServiceClient};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Endpoint;
use votes::{ContestId, Tally};

use crate::{Failure, client, duration};

/// How long to wait before something is tried or asked again.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// Cast a vote over each door, and wait until all of them are counted
///
/// The votes are real ones: they stay in the contest, under a name of their own.
///
/// Exit code: 0 if every vote was acknowledged, is in the book and in the tally; 1 if not; 64 for a wrong flag.
#[derive(Args)]
#[command(
    after_help = "Example:\n  ovation check --rest http://127.0.0.1:8000 --grpc http://127.0.0.1:50051 --results http://127.0.0.1:8080"
)]
pub(crate) struct CheckArgs {
    /// A REST door; may be given several times
    #[arg(long, value_name = "URL", required_unless_present = "grpc")]
    rest: Vec<String>,
    /// A gRPC door; may be given several times
    #[arg(long, value_name = "URL")]
    grpc: Vec<String>,
    /// The results service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    results: String,
    /// The contest to vote in
    #[arg(long, default_value = ContestId::DEFAULT)]
    contest: ContestId,
    /// Whom to vote for
    #[arg(long, default_value = "Ovation check")]
    name: String,
    /// How long all of it may take; doors that can't be reached are tried again until then
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = duration::parse)]
    timeout: Duration,
    /// A file with the token that the results service asks for
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    votes: Vec<Acknowledged>,
    counted_after_ms: u128,
    total: u64,
}

/// A vote that a door acknowledged.
#[derive(Serialize)]
struct Acknowledged {
    url: String,
    #[serde(flatten)]
    receipt: Receipt,
}

#[derive(Serialize, Deserialize)]
struct Receipt {
    vote_id: String,
    partition: u32,
    offset: u64,
}

pub(crate) async fn run(args: CheckArgs) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + args.timeout;
    let before = persist(deadline, || tally(&args)).await.map_err(|problem| format!("the results: {problem}"))?.total;
    let mut votes = Vec::new();
    let doors = args.rest.iter().map(|url| (url, true)).chain(args.grpc.iter().map(|url| (url, false)));
    for (url, is_rest) in doors {
        // One id for all tries, so that whatever came of them the vote counts once.
        let vote_id = uuid::Uuid::now_v7().to_string();
        let receipt = persist(deadline, || async {
            let answer =
                if is_rest { cast_rest(&args, url, &vote_id).await } else { cast_grpc(&args, url, &vote_id).await };
            answer.and_then(|receipt| {
                if receipt.vote_id == vote_id { Ok(receipt) } else { Err("the receipt of another vote".into()) }
            })
        });
        let receipt = receipt.await.map_err(|problem| format!("the door {url} acknowledged no vote: {problem}"))?;
        if !args.json {
            println!("{url} acknowledged {vote_id}: partition {}, offset {}", receipt.partition, receipt.offset);
        }
        votes.push(Acknowledged { url: url.clone(), receipt });
    }
    let acknowledged = Instant::now();
    let total = persist(deadline, || counted(&args, before, &votes)).await?;
    let counted_after_ms = acknowledged.elapsed().as_millis();
    if args.json {
        println!("{}", serde_json::to_string(&Report { votes, counted_after_ms, total })?);
    } else {
        println!("all counted after {counted_after_ms} ms: {} has {total} votes", args.contest);
    }
    Ok(ExitCode::SUCCESS)
}

/// Tries until it succeeds.
///
/// # Errors
/// The last failure, once time is up.
async fn persist<T, F: Future<Output = Result<T, Failure>>>(
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, Failure> {
    loop {
        let failure = match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failure)) => failure,
            Err(_) => return Err("no answer in time".into()),
        };
        if Instant::now() + TRY_AGAIN >= deadline {
            return Err(failure);
        }
        sleep(TRY_AGAIN).await;
    }
}

async fn cast_rest(args: &CheckArgs, url: &str, vote_id: &str) -> Result<Receipt, Failure> {
    let vote = json!({ "name": args.name, "contest": args.contest, "vote_id": vote_id });
    Ok(client::post(url, "/v1/votes", vote.to_string()).await?)
}

async fn cast_grpc(args: &CheckArgs, url: &str, vote_id: &str) -> Result<Receipt, Failure> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect().await;
    let channel = channel.map_err(|error| format!("can't be reached: {error}"))?;
    let vote = CastVoteRequest {
        name: args.name.clone(),
        contest: Some(args.contest.to_string()),
        vote_id: Some(vote_id.to_owned()),
        ..CastVoteRequest::default()
    };
    let answer = VoteServiceClient::new(channel).cast_vote(vote).await;
    let receipt = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?.into_inner();
    Ok(Receipt { vote_id: receipt.vote_id, partition: receipt.partition, offset: receipt.offset })
}

async fn tally(args: &CheckArgs) -> Result<Tally, Failure> {
    Ok(client::get(&args.results, &format!("/v1/contests/{}/tally", args.contest)).await?)
}

/// The contest's votes, if these are among them.
async fn counted(args: &CheckArgs, before: u64, votes: &[Acknowledged]) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Booked {
        votes: Vec<Receipt>,
    }
    let path = format!("/v1/votes?contest={}&name={}&limit=1000", args.contest, client::encode(&args.name));
    let booked: Booked = client::get_as(args.token_file.as_deref(), &args.results, &path).await?;
    for vote in votes {
        if !booked.votes.iter().any(|booked| booked.vote_id == vote.receipt.vote_id) {
            return Err(format!("the vote {} of {} is not in the book", vote.receipt.vote_id, vote.url).into());
        }
    }
    let total = tally(args).await?.total;
    let wanted = before + votes.len() as u64;
    if total < wanted {
        return Err(format!("{} has {total} votes, and {wanted} were acknowledged", args.contest).into());
    }
    Ok(total)
}
