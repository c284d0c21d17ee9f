//! `GET /v1/votes`: the query API over the vote book.

use std::{str::FromStr, sync::Arc};

use jiff::Timestamp;
use rocket::{State, get};
use service::http::Problem;
use votes::{
    Refusal, Table, UnixMillis,
    query::{Query, Schema, Value, Votes},
};

use crate::{
    access::Allowed,
    answer::Answer,
    openapi,
    parameters::Parameters,
    question::{Manner, Question, Wanted},
    reading::Reader,
    stores::Stores,
};

/// Counted votes, newest first unless something else is asked.
///
/// Every field of a vote can be asked for, as `field=value` or `field=op:value` with `eq neq like lt lte gt gte in`. The grammar is the
/// same as for datasets, and `docs/api.md` has all of it.
#[utoipa::path(
    tag = "votes",
    params(
        ("contest" = Option<String>, Query, description = "The contest; `bands` if absent", example = "bands"),
        ("name" = Option<String>, Query, description = "Only votes for this band; as every field also with an operator, like `like:floyd` or `in:Queen,Genesis`", example = "Pink Floyd"),
        ("from" = Option<String>, Query, description = "Only votes accepted at or after this time (RFC 3339)", example = "2026-11-21T18:00:00Z"),
        ("to" = Option<String>, Query, description = "Only votes accepted before this time (RFC 3339)", example = "2026-11-21T23:00:00Z"),
        ("sort" = Option<String>, Query, description = "Up to 4 fields, like `year:desc,name:asc`"),
        ("limit" = Option<String>, Query, description = "`count` or `skip,count`: count 1 to 50 000, 100 if absent; both together at most 100 000. NDJSON and CSV have all rows if absent", example = "100"),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before: this page begins after it"),
        ("fields" = Option<String>, Query, description = "Only these fields, in this order", example = "name,accepted_at"),
        ("allow_scan" = Option<bool>, Query, description = "Whether any number of votes may be looked at"),
        ("via" = Option<String>, Query, description = "`cache` (if absent), `pool` or `direct`"),
        ("max_age" = Option<String>, Query, description = "How old a kept answer may be although there are newer votes, like `5s`, up to `10m`; `0s` if absent", example = "5s"),
        ("format" = Option<String>, Query, description = "`json`, `ndjson` or `csv`; else as `Accept` says"),
    ),
    responses(
        (status = 200, description = "Votes", content((openapi::VotesAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The archive can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[get("/v1/votes?<parameters..>")]
pub(crate) async fn find_votes(
    _allowed: Allowed,
    parameters: Parameters<'_>,
    wanted: Wanted,
    stores: &State<Arc<Stores>>,
    reader: &State<Reader>,
) -> Result<Answer, Problem> {
    let question = question(parameters, wanted, stores)?;
    reader.answer(question).await
}

fn question(mut parameters: Parameters<'_>, wanted: Wanted, stores: &Stores) -> Result<Question, Refusal> {
    let from = parameters.take::<Moment>("from")?.map(|moment| moment.0);
    let to = parameters.take::<Moment>("to")?.map(|moment| moment.0);
    let manner = Manner::take(&mut parameters, wanted)?;
    if let (Some(from), Some(to)) = (from, to)
        && to <= from
    {
        return Err(Refusal::field("to", format_args!("{to} is not after {from}, where the range begins")));
    }
    let schema = Schema::votes();
    let query = Query::parse_with(&schema, parameters.rest(), |query| {
        if !query.asks_of(Votes::CONTEST) {
            let contest = stores.contest(None)?;
            query.require(Votes::CONTEST, Value::Text(contest.to_string()));
        }
        let bounds = query.require_between(Votes::ACCEPTED_AT, from.map(Value::Time), to.map(Value::Time));
        bounds.map_err(|operator| {
            let name = if operator == "gte" { "from" } else { "to" };
            Refusal::field(name, format_args!("is the same as accepted_at={operator}:, which is given, too"))
        })
    })?;
    for contest in query.named(Votes::CONTEST).into_iter().flatten() {
        stores.contest(Some(&contest.to_string()))?;
    }
    Ok(Question { table: Table::Votes, schema, query, manner })
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
