//! The request of a query: its conditions, its read path and the format of its response.

use std::{convert::Infallible, str::FromStr};

use query::{Query, Schema, Table};
use rocket::{
    Request,
    request::{FromRequest, Outcome},
};
use utoipa::IntoParams;
use votes::Refusal;

use crate::parameters::{Parameters, Span};

/// The maximum of `max_age`.
const MAX_AGE: Span = Span::from_millis(600_000);

/// A validated request of a query.
pub(crate) struct QueryRequest {
    pub(crate) table: Table,
    pub(crate) schema: Schema,
    pub(crate) query: Query,
    pub(crate) options: ReadOptions,
}

/// How a query is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadOptions {
    pub(crate) via: ReadPath,
    pub(crate) format: Format,
    /// The maximum age of a cached response that is no longer current, in milliseconds.
    pub(crate) max_age: i64,
    /// Whether the request has the parameter `limit`.
    pub(crate) has_limit: bool,
}

impl Default for ReadOptions {
    /// Returns the options of a request without parameters.
    fn default() -> Self {
        Self { via: ReadPath::Cache, format: Format::Json, max_age: 0, has_limit: false }
    }
}

impl ReadOptions {
    /// Takes the parameters of the options. `preferred` is the format if the parameter `format` is absent.
    pub(crate) fn take(parameters: &mut Parameters<'_>, preferred: PreferredFormat) -> Result<Self, Refusal> {
        let via = parameters.take("via")?.unwrap_or(ReadPath::Cache);
        let format = parameters.take("format")?.unwrap_or(preferred.0);
        let max_age = parameters.take::<Span>("max_age")?;
        if let Some(max_age) = max_age {
            if max_age > MAX_AGE {
                return Err(Refusal::field("max_age", "must be at most 10m"));
            }
            if via != ReadPath::Cache || format != Format::Json {
                let detail = "is only for via=cache and format=json, because no other responses are cached";
                return Err(Refusal::field("max_age", detail));
            }
        }
        let has_limit = parameters.has("limit");
        Ok(Self { via, format, max_age: max_age.map_or(0, Span::millis), has_limit })
    }
}

/// The documentation of the parameters that all queries have in addition to conditions on columns.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "parameters are read by their names")]
pub(crate) struct ReadParameters {
    /// The order: up to 4 columns, for example `year:desc,name:asc`
    sort: Option<String>,
    /// `count` or `skip,count`: `count` is 1 to 50 000, 100 by default, and `skip + count` is at most 100 000. Without
    /// `limit`, NDJSON and CSV have all rows
    #[param(example = "100")]
    limit: Option<String>,
    /// The `next` of the previous page
    cursor: Option<String>,
    /// The columns of the response, in this order; all columns by default
    #[param(example = "name")]
    fields: Option<String>,
    /// Whether the query may examine any number of rows
    allow_scan: Option<bool>,
    /// The way in which the query is served: `cache` (the default), `pool` or `direct`
    via: Option<String>,
    /// The maximum age of a cached response that is no longer current, for example `5s`, up to `10m`; `0s` by default
    #[param(example = "5s")]
    max_age: Option<String>,
    /// `json`, `ndjson` or `csv`; by default as in the header `Accept`
    format: Option<String>,
}

/// The way in which a query is served: the parameter `via`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadPath {
    /// A new connection for the query.
    Direct,
    /// A connection of the pool.
    Pool,
    /// The cached response or, if no response is cached, a connection of the pool.
    Cache,
}

impl ReadPath {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pool => "pool",
            Self::Cache => "cache",
        }
    }
}

impl FromStr for ReadPath {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Direct, Self::Pool, Self::Cache];
        all.into_iter().find(|via| via.as_str() == text).ok_or("must be cache, pool or direct")
    }
}

/// The format of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A page as one JSON object.
    Json,
    /// A stream of rows, one JSON object per line.
    Ndjson,
    /// A stream of rows as comma-separated values with a header line (RFC 4180).
    Csv,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            _ => Err("must be json, ndjson or csv"),
        }
    }
}

/// The first known format in the header `Accept`, or JSON if the header has no known format.
#[derive(Clone, Copy)]
pub(crate) struct PreferredFormat(Format);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for PreferredFormat {
    type Error = Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Infallible> {
        let of_type = |range: &str| match range.split(';').next().unwrap_or_default().trim() {
            "application/json" => Some(Format::Json),
            "application/x-ndjson" => Some(Format::Ndjson),
            "text/csv" => Some(Format::Csv),
            _ => None,
        };
        let mut ranges = request.headers().get("Accept").flat_map(|header| header.split(','));
        Outcome::Success(Self(ranges.find_map(of_type).unwrap_or(Format::Json)))
    }
}
