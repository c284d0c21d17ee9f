//! How a question is asked: which rows, in which way and in which form.

use std::{convert::Infallible, str::FromStr};

use rocket::{
    Request,
    request::{FromRequest, Outcome},
};
use votes::{
    Refusal, Table,
    query::{Query, Schema},
};

use crate::parameters::{Parameters, Span};

/// The oldest answer that anybody may want.
const MAX_AGE: Span = Span::from_millis(600_000);

/// A question, read.
pub(crate) struct Question {
    pub(crate) table: Table,
    pub(crate) schema: Schema,
    pub(crate) query: Query,
    pub(crate) manner: Manner,
}

/// How it is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) via: Via,
    pub(crate) format: Format,
    /// How old a kept answer may be although there are newer votes, in milliseconds.
    pub(crate) max_age: i64,
    /// Whether it is said how many rows are wanted.
    pub(crate) has_limit: bool,
}

impl Manner {
    /// That of one who says nothing of it.
    pub(crate) fn plain() -> Self {
        Self { via: Via::Cache, format: Format::Json, max_age: 0, has_limit: false }
    }

    /// Takes its part of the parameters.
    pub(crate) fn take(parameters: &mut Parameters<'_>, wanted: Wanted) -> Result<Self, Refusal> {
        let via = parameters.take("via")?.unwrap_or(Via::Cache);
        let format = parameters.take("format")?.unwrap_or(wanted.0);
        let max_age = parameters.take::<Span>("max_age")?;
        if let Some(max_age) = max_age {
            if max_age > MAX_AGE {
                return Err(Refusal::field("max_age", "must be at most 10m"));
            }
            if via != Via::Cache || format != Format::Json {
                return Err(Refusal::field("max_age", "is for via=cache and format=json: nothing else is kept"));
            }
        }
        let has_limit = parameters.has("limit");
        Ok(Self { via, format, max_age: max_age.map_or(0, Span::millis), has_limit })
    }
}

/// The ways to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// A new connection.
    Direct,
    /// A connection of the pool.
    Pool,
    /// What is kept, or a connection of the pool.
    Cache,
}

impl Via {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pool => "pool",
            Self::Cache => "cache",
        }
    }
}

impl FromStr for Via {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Direct, Self::Pool, Self::Cache];
        all.into_iter().find(|via| via.as_str() == text).ok_or("must be cache, pool or direct")
    }
}

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A page, as one object.
    Json,
    /// As many rows as there are, an object a line.
    Ndjson,
    /// The same as comma-separated values, with a line of names (RFC 4180).
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

/// The form that the header `Accept` names first. JSON if it names none of ours.
#[derive(Clone, Copy)]
pub(crate) struct Wanted(Format);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Wanted {
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
