//! The parts that the `OpenAPI` documents of our HTTP services share: the headers of every response, and problems.

use std::collections::BTreeMap;

use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, Type,
};
use votes::Reason;

/// The media type of problems (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// An `OpenAPI` document as JSON. The JSON is written once, not for each request.
pub struct Document(String);

impl Document {
    /// Adds to each response the headers that every response has, and writes the document.
    pub fn new(mut api: OpenApi) -> Self {
        for path in api.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.post, &mut path.delete].into_iter().flatten() {
                for (status, response) in &mut operation.responses.responses {
                    if let RefOr::T(response) = response {
                        add_headers(status, response);
                    }
                }
            }
        }
        // Writing to a string can't fail, and a test parses the document.
        Self(api.to_json().unwrap_or_default())
    }

    /// Returns the document as JSON.
    pub fn json(&self) -> &str {
        &self.0
    }
}

fn add_headers(status: &str, response: &mut Response) {
    let mut add = |name: &str, kind, description: &str| {
        let schema = ObjectBuilder::new().schema_type(kind).build();
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
        response.headers.insert(name.to_owned(), header.into());
    };
    add("X-Request-Id", Type::String, "The client's `X-Request-Id`, if it sent one, else a new id.");
    add("X-Response-Time", Type::String, "How long the server took, like `0.512ms`.");
    if status == "503" {
        add("Retry-After", Type::Integer, "The number of seconds after which to try again.");
    }
}

/// Describes a response that is a problem. `schema` is the name of its schema.
pub fn problem(schema: &str, description: impl Into<String>) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
    ResponseBuilder::new().description(description).content(PROBLEM, content).build()
}

/// Describes the responses for these reasons: one response for each status, which lists the reasons with this status.
/// `schema` is the name of their schema.
pub fn problems(schema: &str, reasons: &[Reason]) -> BTreeMap<String, RefOr<Response>> {
    let mut statuses = BTreeMap::<u16, Vec<String>>::new();
    for reason in reasons {
        statuses.entry(reason.http_status()).or_default().push(format!("`{}`: {}", reason.slug(), reason.title()));
    }
    let response = |reasons: Vec<String>| problem(schema, reasons.join("; ")).into();
    statuses.into_iter().map(|(status, reasons)| (status.to_string(), response(reasons))).collect()
}
