//! `GET /v1/votes`: queries for single votes of the ledger.

use std::str::FromStr;

use api::VotesResponse;
use jiff::Timestamp;
use query::{Query, Schema, Table, Value, Votes};
use rocket::{State, get};
use service::http::Problem;
use votes::{Refusal, UnixMillis};

use super::{
    reader::Reader,
    request::{PreferredFormat, QueryRequest, ReadOptions, ReadParameters},
    response::QueryResponse,
};
use crate::{
    access::Authorized,
    contests::ContestNames,
    parameters::Parameters,
    problems::{InvalidParameter, StoreUnavailable, TokenRequired, UnknownContest},
};

/// Returns counted votes, newest first by default.
///
/// Every field of a vote can be a condition: `field=value`, or `field=op:value` with one of the operators `eq`, `neq`,
/// `like`, `lt`, `lte`, `gt`, `gte`, `in`. The grammar is the same as for datasets; `docs/api.md` describes it.
#[utoipa::path(
    tag = "votes",
    params(
        ("contest" = Option<String>, Query, description = "The contest; `bands` by default", example = "bands"),
        ("name" = Option<String>, Query, description = "Only votes for this band. As for every field, an operator is allowed: `like:floyd`, `in:Queen,Genesis`", example = "Pink Floyd"),
        ("from" = Option<String>, Query, description = "Only votes accepted at or after this time (RFC 3339)", example = "2026-11-21T18:00:00Z"),
        ("to" = Option<String>, Query, description = "Only votes accepted before this time (RFC 3339)", example = "2026-11-21T23:00:00Z"),
        ReadParameters,
    ),
    responses(
        (status = 200, description = "Votes", content((VotesResponse = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        TokenRequired,
        UnknownContest,
        InvalidParameter,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[get("/v1/votes?<parameters..>")]
pub(crate) async fn find_votes(
    _authorized: Authorized,
    parameters: Parameters<'_>,
    format: PreferredFormat,
    contests: &State<ContestNames>,
    reader: &State<Reader>,
) -> Result<QueryResponse, Problem> {
    let request = read_request(parameters, format, contests)?;
    reader.respond(request).await
}

fn read_request(
    mut parameters: Parameters<'_>,
    format: PreferredFormat,
    contests: &ContestNames,
) -> Result<QueryRequest, Refusal> {
    let from = parameters.take::<Time>("from")?.map(|time| time.0);
    let to = parameters.take::<Time>("to")?.map(|time| time.0);
    let options = ReadOptions::take(&mut parameters, format)?;
    if let (Some(from), Some(to)) = (from, to)
        && to <= from
    {
        return Err(Refusal::field("to", format_args!("must be after from: {to} is not after {from}")));
    }
    let schema = Schema::votes();
    let query = Query::parse_with(&schema, parameters.into_rest(), |query| {
        if !query.has_condition(Votes::CONTEST) {
            let contest = contests.named(None)?;
            query.require(Votes::CONTEST, Value::Text(contest.to_string()));
        }
        let bounds = query.require_between(Votes::ACCEPTED_AT, from.map(Value::Time), to.map(Value::Time));
        bounds.map_err(|operator| {
            let name = if operator == "gte" { "from" } else { "to" };
            Refusal::field(
                name,
                format_args!("is the same condition as accepted_at={operator}:; give only one of them"),
            )
        })
    })?;
    for contest in query.required_values(Votes::CONTEST).into_iter().flatten() {
        contests.named(Some(&contest.to_string()))?;
    }
    Ok(QueryRequest { table: Table::Votes, schema, query, options })
}

/// A time in the format of RFC 3339.
struct Time(UnixMillis);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = text
            .parse::<Timestamp>()
            .map_err(|_| "must be an RFC 3339 time like 2026-11-21T18:00:00Z; write + as %2B in a URL")?;
        Ok(Self(UnixMillis(time.as_millisecond())))
    }
}
