//! `GET /openapi.json`: the door's description, generated from its routes and types.

use std::collections::BTreeMap;

use rocket::{State, get, response::content::RawJson};
use serde::Serialize;
use service::http::Problem;
use utoipa::{
    IntoResponses, OpenApi, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Response, ResponseBuilder, Schema, Type,
    },
};
use votes::Reason;

use crate::receipt::Receipt;

/// The document as it is served.
pub(crate) struct Document(String);

/// This document.
#[utoipa::path(
    tag = "about",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = serde_json::Value)),
)]
#[get("/openapi.json")]
pub(crate) fn openapi(document: &State<Document>) -> RawJson<String> {
    RawJson(document.0.clone())
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Ovation: the REST door", description = "Takes votes, and answers when the vote log has them for good."),
    paths(crate::welcome, crate::single::cast_vote, crate::batch::cast_votes, openapi),
    components(schemas(Problem, BatchProblem)),
    tags((name = "votes", description = "Casting votes"), (name = "about", description = "About this door")),
)]
struct Door;

pub(crate) fn document() -> Document {
    let mut api = Door::openapi();
    for path in api.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post].into_iter().flatten() {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    add_manners(response);
                }
            }
        }
    }
    // Writing to a string can't fail, and a test reads the document back.
    Document(api.to_json().unwrap_or_default())
}

/// Every response has these.
fn add_manners(response: &mut Response) {
    let mut add = |name: &str, kind, description: &str| {
        let schema = ObjectBuilder::new().schema_type(kind).build();
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        response.headers.insert(name.to_owned(), header.into());
    };
    add("X-Request-Id", Type::String, "The client's `X-Request-Id` if it sent one, else a new one.");
    add("X-Response-Time", Type::String, "How long the door took, like `0.512ms`.");
    if response.content.contains_key(PROBLEM) && response.description.contains("queue-full") {
        add("Retry-After", Type::Integer, "When to come again, in seconds.");
    }
}

const PROBLEM: &str = "application/problem+json";

/// The problems of `POST /v1/votes`: one response for each status, which names its rules.
pub(crate) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&Reason::ALL, "Problem")
    }
}

/// The problems of a whole batch.
pub(crate) struct BatchRefusals;

impl IntoResponses for BatchRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = responses(
            &[Reason::MalformedBody, Reason::SlowBody, Reason::UnsupportedMediaType, Reason::InvalidField],
            "Problem",
        );
        all.append(&mut responses(&[Reason::QueueFull, Reason::LogUnavailable], "BatchProblem"));
        all
    }
}

fn responses(reasons: &[Reason], schema: &str) -> BTreeMap<String, RefOr<Response>> {
    let mut rules = BTreeMap::<u16, Vec<String>>::new();
    for reason in reasons {
        rules.entry(reason.http_status()).or_default().push(format!("`{}`: {}", reason.slug(), reason.title()));
    }
    let response = |rules: Vec<String>| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
        ResponseBuilder::new().description(rules.join("; ")).content(PROBLEM, content).build()
    };
    rules.into_iter().map(|(status, rules)| (status.to_string(), response(rules).into())).collect()
}

/// A problem of a whole batch of which no vote was confirmed.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchProblem {
    #[schema(inline)]
    #[serde(flatten)]
    problem: Problem,
    /// What became of each vote, with its id: the log may have some of them all the same.
    votes: Vec<BatchItem>,
}

/// What became of one vote of a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a schema")]
pub(crate) enum BatchItem {
    /// The log has it.
    Receipt(Receipt),
    /// It was refused.
    Problem(Problem),
}

/// A vote.
// The schema of what `VoteRequest::from_json` reads; a test compares them.
#[derive(Serialize, ToSchema)]
#[schema(as = Vote, example = json!({"name": "Pink Floyd", "album": "The Wall", "year": 1979, "rank": 5}))]
#[serde(deny_unknown_fields)]
pub(crate) struct VoteBody {
    /// The band: 1 to 100 characters after trimming, in any Unicode normalisation form, without control characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// The album: up to 200 characters.
    #[schema(max_length = 200)]
    album: Option<String>,
    #[schema(schema_with = year)]
    year: Option<u16>,
    #[schema(schema_with = rank)]
    rank: Option<f64>,
    /// The contest's slug.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", default = "bands")]
    contest: Option<String>,
    /// Who votes: opaque text, never stored, required where the contest says so.
    #[schema(min_length = 1, max_length = 256)]
    voter: Option<String>,
    /// The retry key: casting a vote again with the same id counts it once. Made by the door if absent.
    #[schema(format = Uuid)]
    vote_id: Option<String>,
}

fn year() -> Schema {
    let year = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1900)).maximum(Some(2100));
    number_or_text("The album's year, as a number or as numeric text.", year)
}

fn rank() -> Schema {
    let rank = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(100));
    number_or_text("A rank, as a number or as numeric text.", rank)
}

fn number_or_text(description: &str, number: ObjectBuilder) -> Schema {
    let pattern = r"^\s*-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*$";
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
    let none = ObjectBuilder::new().schema_type(Type::Null);
    OneOfBuilder::new().description(Some(description)).item(number).item(text).item(none).build().into()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use service::{client::TrustedProxies, door::MeteredDoor};
    use votes::{DoorKind, fake::FakeQueue};

    use super::*;

    #[tokio::test]
    async fn every_route_is_documented_and_every_documented_path_is_a_route() {
        let door = votes::Door::new(DoorKind::Rest, Arc::default(), None, FakeQueue::new());
        let door = MeteredDoor::new(door, TrustedProxies::default());
        let rocket = crate::stage(door, crate::Patience::default());
        let routes: BTreeSet<_> =
            rocket.routes().map(|route| format!("{} {}", route.method, route.uri.path())).collect();
        let paths = Door::openapi().paths.paths;
        let documented = paths.iter().flat_map(|(path, item)| {
            let of = |method, is_there: bool| is_there.then(|| format!("{method} {path}"));
            let others = [&item.put, &item.delete, &item.patch, &item.head, &item.options, &item.trace];
            assert!(others.iter().all(|operation| operation.is_none()));
            [of("GET", item.get.is_some()), of("POST", item.post.is_some())].into_iter().flatten()
        });
        assert_eq!(routes, documented.collect());
    }
}
