//! Describes the problems that the routes return, for `OpenAPI`.

use std::collections::BTreeMap;

use service::openapi::problems;
use utoipa::{
    IntoResponses,
    openapi::{RefOr, Response},
};
use votes::Reason;

/// The problems of `POST /v1/votes`.
pub(crate) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems("Problem", &Reason::ALL)
    }
}

/// The problems of a whole batch. Other reasons are in the items of the response.
pub(crate) struct BatchRefusals;

impl IntoResponses for BatchRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = problems(
            "Problem",
            &[Reason::MalformedBody, Reason::SlowBody, Reason::UnsupportedMediaType, Reason::InvalidField],
        );
        all.append(&mut problems("BatchProblem", &[Reason::QueueFull, Reason::LogUnavailable]));
        all
    }
}
