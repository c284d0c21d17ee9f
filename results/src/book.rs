//! `GET /v1/votes`: the query API over the vote book.

use std::{str::FromStr, sync::Arc};

use jiff::Timestamp;
use rocket::{State, get, serde::json::Json};
use serde::Serialize;
use service::http::Problem;
use utoipa::ToSchema;
use votes::{LoggedVote, Refusal, UnixMillis, VoteQuery, band_name};

use crate::{
    parameters::{Count, Parameters},
    stores::{Stores, unavailable},
};

/// Votes of the book.
#[derive(Serialize, ToSchema)]
pub(crate) struct Votes {
    /// Newest first.
    votes: Vec<CountedVote>,
}

/// A vote that was counted.
#[derive(Serialize, ToSchema)]
struct CountedVote {
    /// The client's retry key, or the id made at the door.
    #[schema(format = "uuid")]
    vote_id: String,
    /// The contest.
    #[schema(example = "bands")]
    contest: String,
    /// The band.
    #[schema(example = "Pink Floyd")]
    name: String,
    /// The album, if the vote names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    album: Option<String>,
    /// The album's year.
    #[serde(skip_serializing_if = "Option::is_none")]
    year: Option<u16>,
    /// 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<f64>,
    /// Who voted: HMAC-SHA-256 in hexadecimal. The voter itself is stored nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    voter: Option<String>,
    /// When the door took it (RFC 3339, UTC).
    #[schema(format = "date-time")]
    accepted_at: String,
    /// Who put it on the log: `rest`, `grpc` or `import`.
    #[schema(example = "rest")]
    door: &'static str,
    /// The partition of the log it is on.
    partition: u16,
    /// Its offset there.
    offset: u64,
}

impl From<LoggedVote> for CountedVote {
    fn from(LoggedVote { place, vote }: LoggedVote) -> Self {
        Self {
            vote_id: vote.vote_id.to_string(),
            contest: vote.contest.to_string(),
            name: vote.name,
            album: vote.album,
            year: vote.year,
            rank: vote.rank,
            voter: vote.voter.map(|voter| voter.to_string()),
            accepted_at: vote.accepted_at.to_string(),
            door: vote.door.as_str(),
            partition: place.partition.0,
            offset: place.offset.0,
        }
    }
}

/// Counted votes of a contest, newest first.
#[utoipa::path(
    tag = "votes",
    params(
        ("contest" = Option<String>, Query, description = "The contest; `bands` if absent", example = "bands"),
        ("name" = Option<String>, Query, description = "Only votes for this band", example = "Pink Floyd"),
        ("from" = Option<String>, Query, description = "Only votes accepted at or after this time (RFC 3339)", example = "2026-11-21T18:00:00Z"),
        ("to" = Option<String>, Query, description = "Only votes accepted before this time (RFC 3339)", example = "2026-11-21T23:00:00Z"),
        ("limit" = Option<u16>, Query, description = "How many, 1 to 1000; 100 if absent", example = 100),
    ),
    responses(
        (status = 200, description = "Votes, newest first", body = Votes),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The book can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[get("/v1/votes?<parameters..>")]
pub(crate) async fn find_votes(
    parameters: Parameters<'_>,
    stores: &State<Arc<Stores>>,
) -> Result<Json<Votes>, Problem> {
    let query = query(parameters, stores)?;
    let votes = stores.votes(query).await.map_err(|error| unavailable(&error))?;
    Ok(Json(Votes { votes: votes.into_iter().map(CountedVote::from).collect() }))
}

fn query(mut parameters: Parameters<'_>, stores: &Stores) -> Result<VoteQuery, Refusal> {
    let contest = parameters.take::<String>("contest")?;
    // A band is found however its name is composed: as the door made it a key.
    let name = parameters.take::<String>("name")?.map(band_name).transpose()?;
    let from = parameters.take::<Moment>("from")?.map(|moment| moment.0);
    let to = parameters.take::<Moment>("to")?.map(|moment| moment.0);
    let limit = parameters.take::<Count>("limit")?.unwrap_or_default();
    parameters.end()?;
    if let (Some(from), Some(to)) = (from, to)
        && to <= from
    {
        return Err(Refusal::field("to", format_args!("{to} is not after {from}, where the range begins")));
    }
    let contest = stores.contest(contest.as_deref())?.clone();
    Ok(VoteQuery { contest, name, from, to, most: limit.get() })
}

/// RFC 3339.
struct Moment(UnixMillis);

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = text
            .parse::<Timestamp>()
            .map_err(|_| "must be an RFC 3339 time like 2026-11-21T18:00:00Z; in an address a + is written %2B")?;
        Ok(Self(UnixMillis(time.as_millisecond())))
    }
}
