//! `ovation check`: checks that a vote through each producer is counted.

use std::{future::Future, path::PathBuf, process::ExitCode, time::Duration};

use api::{Receipt, Tally, Vote, VotesResponse};
use clap::Args;
use client::http;
use form_urlencoded::Serializer;
use proto::v1::CastVoteRequest;
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use serde::Serialize;
use service::{program::Failure, token::ReadToken};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Endpoint;
use uuid::Uuid;
use votes::{ContestId, parse_duration};

/// The pause between two attempts.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Cast one vote through each producer, and wait until all these votes are counted
///
/// The votes are real: they remain in the contest, as votes for --name.
///
/// Exit code: 0 if every vote was acknowledged and is in the ledger, and the total of the contest has risen by at least
/// the number of these votes; 1 if not; 64 for an invalid command line.
#[derive(Args)]
#[command(
    after_help = "Example:\n  ovation check --rest http://127.0.0.1:8000 --grpc http://127.0.0.1:50051 --results http://127.0.0.1:8080"
)]
pub(crate) struct CheckArgs {
    /// The URL of a REST producer; may be given several times
    #[arg(long, value_name = "URL", required_unless_present = "grpc")]
    rest: Vec<String>,
    /// The URL of a gRPC producer; may be given several times
    #[arg(long, value_name = "URL")]
    grpc: Vec<String>,
    /// The URL of the results service
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    results: String,
    /// The contest to vote in
    #[arg(long, default_value = ContestId::DEFAULT)]
    contest: ContestId,
    /// The name to vote for
    #[arg(long, default_value = "Ovation check")]
    name: String,
    /// The maximum time for the whole check; failed requests are repeated until then
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = parse_duration)]
    timeout: Duration,
    /// A file with the read token of the results service
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

/// A vote that a producer acknowledged.
#[derive(Serialize)]
struct Acknowledged {
    url: String,
    #[serde(flatten)]
    position: VotePosition,
}

/// A vote and its position on the log.
#[derive(Serialize)]
struct VotePosition {
    vote_id: Uuid,
    partition: u32,
    offset: u64,
}

pub(crate) async fn run(args: CheckArgs) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + args.timeout;
    let before = retry_until(deadline, || request_tally(&args))
        .await
        .map_err(|problem| format!("the results: {problem}"))?
        .total;
    let mut votes = Vec::new();
    let producers = args.rest.iter().map(|url| (url, true)).chain(args.grpc.iter().map(|url| (url, false)));
    for (url, is_rest) in producers {
        // All attempts have the same vote id, so that the vote counts once.
        let vote_id = Uuid::now_v7();
        let position = retry_until(deadline, || async {
            let receipt =
                if is_rest { cast_rest(&args, url, vote_id).await } else { cast_grpc(&args, url, vote_id).await };
            receipt.and_then(|position| {
                if position.vote_id == vote_id { Ok(position) } else { Err("the receipt is for another vote".into()) }
            })
        });
        let position =
            position.await.map_err(|problem| format!("the producer {url} acknowledged no vote: {problem}"))?;
        if !args.json {
            println!("{url} acknowledged {vote_id}: partition {}, offset {}", position.partition, position.offset);
        }
        votes.push(Acknowledged { url: url.clone(), position });
    }
    let acknowledged = Instant::now();
    let total = retry_until(deadline, || total_if_counted(&args, before, &votes)).await?;
    let counted_after_ms = acknowledged.elapsed().as_millis();
    if args.json {
        println!("{}", serde_json::to_string(&Report { votes, counted_after_ms, total })?);
    } else {
        println!(
            "the votes of this check were counted within {counted_after_ms} ms of the last acknowledgement; {} now has {total} votes",
            args.contest
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Repeats the attempt until it succeeds.
///
/// # Errors
/// After the deadline, the failure of the last attempt.
async fn retry_until<T, F: Future<Output = Result<T, Failure>>>(
    deadline: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, Failure> {
    loop {
        let failure = match timeout_at(deadline, attempt()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failure)) => failure,
            Err(_) => return Err("no response in time".into()),
        };
        if Instant::now() + RETRY_DELAY >= deadline {
            return Err(failure);
        }
        sleep(RETRY_DELAY).await;
    }
}

async fn cast_rest(args: &CheckArgs, url: &str, vote_id: Uuid) -> Result<VotePosition, Failure> {
    let vote = Vote {
        name: args.name.clone(),
        contest: Some(args.contest.to_string()),
        vote_id: Some(vote_id.to_string()),
        ..Vote::default()
    };
    let receipt: Receipt = http::post(url, "/v1/votes", serde_json::to_string(&vote)?).await?;
    Ok(VotePosition { vote_id: receipt.vote_id, partition: receipt.partition.into(), offset: receipt.offset })
}

async fn cast_grpc(args: &CheckArgs, url: &str, vote_id: Uuid) -> Result<VotePosition, Failure> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect().await;
    let channel = channel.map_err(|error| format!("can't be reached: {error}"))?;
    let vote = CastVoteRequest {
        name: args.name.clone(),
        contest: Some(args.contest.to_string()),
        vote_id: Some(vote_id.to_string()),
        ..CastVoteRequest::default()
    };
    let response = VoteServiceClient::new(channel).cast_vote(vote).await;
    let receipt = response.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?.into_inner();
    Ok(VotePosition { vote_id: receipt.vote_id.parse()?, partition: receipt.partition, offset: receipt.offset })
}

async fn request_tally(args: &CheckArgs) -> Result<Tally, Failure> {
    Ok(http::get(&args.results, &format!("/v1/contests/{}/tally", args.contest)).await?)
}

/// Returns the total of the contest.
///
/// # Errors
/// If one of these votes is not in the ledger, or the total is lower than `before` plus the number of these votes.
async fn total_if_counted(args: &CheckArgs, before: u64, votes: &[Acknowledged]) -> Result<u64, Failure> {
    let query = [("contest", args.contest.as_str()), ("name", &args.name), ("limit", "1000")];
    let path = format!("/v1/votes?{}", Serializer::new(String::new()).extend_pairs(query).finish());
    let authorization = ReadToken::for_command(args.token_file.as_deref())?.map(|token| token.authorization());
    let recorded: VotesResponse = http::get_as(authorization.as_deref(), &args.results, &path).await?;
    for vote in votes {
        if !recorded.votes.iter().any(|recorded| recorded.vote_id == vote.position.vote_id) {
            return Err(format!("the vote {} of {} is not in the ledger", vote.position.vote_id, vote.url).into());
        }
    }
    let total = request_tally(args).await?.total;
    let expected = before + votes.len() as u64;
    if total < expected {
        return Err(format!("{} has {total} votes instead of at least {expected}", args.contest).into());
    }
    Ok(total)
}
