//! `GET /openapi.json`: what the HTTP side serves, generated from the routes (`OpenAPI` 3.1).

#![expect(dead_code, reason = "the types here are the shapes of JSON that the domain's own types serialise to")]

use std::collections::BTreeMap;

use rocket::{get, serde::json::Json};
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::{albums, book, datasets, import::routes, rates, reading, stream, tally};

#[derive(OpenApi)]
#[openapi(
    info(title = "Ovation results", description = "How contests stand, live, and every vote that was counted."),
    paths(
        tally::contests,
        tally::tally,
        stream::tally_stream,
        albums::albums,
        rates::rates,
        rates::settled_rates,
        book::find_votes,
        datasets::datasets,
        datasets::find_rows,
        reading::invalidate,
        routes::import_dataset,
        routes::remove_dataset,
        routes::import_votes,
        routes::import
    ),
    modifiers(&Token)
)]
struct Document;

/// The one way to say who asks.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", bearer);
    }
}

#[get("/openapi.json")]
pub(crate) fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// A contest as it stands.
#[derive(ToSchema)]
pub(crate) struct Tally {
    /// The contest.
    #[schema(example = "bands")]
    contest: String,
    /// Votes counted for it.
    total: u64,
    /// Raised by each change of the tallies, of any contest.
    version: u64,
    /// The leading bands, at most 100, most votes first.
    bands: Vec<BandVotes>,
    /// The bands past those.
    others: Others,
    /// Votes by door: `rest`, `grpc`, `import`.
    doors: BTreeMap<String, u64>,
    /// Records of the log that have been counted, or recognised as repeats, over all contests.
    processed: u64,
    /// Records on the log, over all contests. Those past `processed` wait to be counted.
    accepted: u64,
}

/// One band's votes.
#[derive(ToSchema)]
pub(crate) struct BandVotes {
    /// The band.
    #[schema(example = "Pink Floyd")]
    name: String,
    /// Its votes.
    votes: u64,
    /// Of the contest's total, 0 to 1.
    share: f64,
}

/// The bands that are not shown one by one.
#[derive(ToSchema)]
pub(crate) struct Others {
    /// How many bands.
    bands: u64,
    /// Their votes together.
    votes: u64,
}

/// One album's votes.
#[derive(ToSchema)]
pub(crate) struct AlbumVotes {
    /// The band.
    #[schema(example = "Pink Floyd")]
    name: String,
    /// The album.
    #[schema(example = "The Wall")]
    album: String,
    /// Its votes.
    votes: u64,
}

/// The votes of one window of time.
#[derive(ToSchema)]
pub(crate) struct RateWindow {
    /// Its start: Unix time in milliseconds, UTC.
    #[schema(example = 1_763_750_000_000_i64)]
    start: i64,
    /// The votes accepted in it.
    votes: u64,
}

/// The votes of windows that no vote can join any more.
#[derive(ToSchema)]
pub(crate) struct SettledRates {
    /// The first window's start: Unix time in milliseconds, UTC.
    #[schema(example = 1_763_750_000_000_i64)]
    from: i64,
    /// The last window's end. Nothing is settled yet if it is `from`.
    #[schema(example = 1_763_750_001_000_i64)]
    before: i64,
    /// Those that have votes, by time.
    windows: Vec<RateWindow>,
}

/// Votes.
#[derive(ToSchema)]
pub(crate) struct VotesAnswer {
    /// In the wanted order.
    votes: Vec<CountedVote>,
    /// How many match, on all pages.
    total: u64,
    /// Whether that is `exact`, or there are `at_least` so many.
    #[schema(example = "exact")]
    total_is: String,
    /// What `cursor` has to be for the next page, if there is one. Also absent where a text that is sorted by is too long for it.
    next: Option<String>,
    /// How it was answered.
    served: Served,
}

/// Rows of a dataset.
#[derive(ToSchema)]
pub(crate) struct RowsAnswer {
    /// In the wanted order: each has its columns' texts by their names. A column whose name is empty, or twice, is called `column.N`.
    rows: Vec<BTreeMap<String, String>>,
    /// How many match, on all pages.
    total: u64,
    /// Whether that is `exact`, or there are `at_least` so many.
    #[schema(example = "exact")]
    total_is: String,
    /// What `cursor` has to be for the next page, if there is one. Also absent where a text that is sorted by is too long for it.
    next: Option<String>,
    /// How it was answered.
    served: Served,
}

/// A vote that was counted.
#[derive(ToSchema)]
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
    album: Option<String>,
    /// The album's year.
    year: Option<u16>,
    /// 0 to 100.
    rank: Option<f64>,
    /// Who voted: HMAC-SHA-256 in hexadecimal. The voter itself is stored nowhere.
    voter: Option<String>,
    /// When the door took it (RFC 3339, UTC).
    #[schema(format = "date-time")]
    accepted_at: String,
    /// Who put it on the log: `rest`, `grpc` or `import`.
    #[schema(example = "rest")]
    door: String,
    /// The partition of the log it is on.
    partition: u16,
    /// Its offset there.
    offset: u64,
}

/// How a question was answered.
#[derive(ToSchema)]
pub(crate) struct Served {
    /// `cache`, `pool` or `direct`.
    #[schema(example = "cache")]
    via: String,
    /// `hit`; `stale`, which is a hit that is older than the newest votes or rows, as `max_age` allows; `miss`; `bypassed`; or
    /// `degraded`: the place where answers are kept does not answer.
    #[schema(example = "hit")]
    cache: String,
    /// How long ago the archive was read, in milliseconds.
    age_ms: u64,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_documented_and_every_documented_route_is_there() {
        let routes = crate::routes().into_iter().map(|route| (route.method.as_str(), route.uri.path().to_owned()));
        let served: BTreeSet<String> = routes
            .filter(|(_, path)| path.starts_with("/v1/"))
            .map(|(method, path)| format!("{method} {}", path.replace('<', "{").replace('>', "}")))
            .collect();
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let documented: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        assert_eq!(served, documented);
        assert!(served.len() >= 6);
    }
}
