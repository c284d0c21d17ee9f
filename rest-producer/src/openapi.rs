//! `GET /openapi.json`: the description of the API, generated from the routes and types.

use api::{BatchProblem, Problem};
use rocket::{State, get, response::content::RawJson};
use service::openapi::Document;
use utoipa::OpenApi;

/// Returns this document.
#[utoipa::path(
    tag = "about",
    responses((status = 200, description = "This document (OpenAPI 3.1)", content_type = "application/json", body = serde_json::Value)),
)]
#[get("/openapi.json")]
pub(crate) fn openapi(document: &State<Document>) -> RawJson<&str> {
    RawJson(document.json())
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ovation: the REST producer",
        description = "Accepts votes, and responds when they are durable on the vote log.",
    ),
    paths(crate::welcome::welcome, crate::single::cast_vote, crate::batch::cast_votes, openapi),
    components(schemas(Problem, BatchProblem)),
    tags((name = "votes", description = "Cast votes"), (name = "about", description = "About this producer")),
)]
pub(crate) struct RestProducer;

pub(crate) fn document() -> Document {
    Document::new(RestProducer::openapi())
}
