//! `GET /v1/contests` and `GET /v1/contests/{contest}/tally`: who is voted on, and how it stands.

use std::sync::Arc;

use rocket::{State, get, serde::json::Json};
use serde::Serialize;
use service::http::Problem;
use utoipa::ToSchema;
use votes::Tally;

use crate::{
    openapi,
    stores::{Stores, unavailable},
};

/// A contest as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Standing {
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Records on the vote log, over all contests; never below the tally's `processed`.
    pub(crate) accepted: u64,
}

impl Standing {
    /// Whether both show the same votes of the contest. The version and the totals over all contests may differ.
    pub(crate) fn has_the_same_votes(&self, other: &Self) -> bool {
        let votes = |standing: &Self| (standing.tally.total, standing.tally.others);
        votes(self) == votes(other) && self.tally.doors == other.tally.doors && self.tally.bands == other.tally.bands
    }
}

/// The contests.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContestList {
    contests: Vec<ContestName>,
}

/// A contest.
#[derive(Serialize, ToSchema)]
struct ContestName {
    /// Its slug, `[a-z0-9][a-z0-9-]{0,62}`.
    #[schema(example = "bands")]
    contest: String,
}

/// The contests, by name.
#[utoipa::path(
    tag = "contests",
    responses((status = 200, description = "Every contest of the configuration", body = ContestList)),
)]
#[get("/v1/contests")]
pub(crate) fn contests(stores: &State<Arc<Stores>>) -> Json<ContestList> {
    let contests = stores.contests().map(|contest| ContestName { contest: contest.to_string() });
    Json(ContestList { contests: contests.collect() })
}

/// A contest as it stands.
#[utoipa::path(
    tag = "contests",
    params(("contest" = String, Path, description = "The contest's slug", example = "bands")),
    responses(
        (status = 200, description = "The standing, read after the request came", body = openapi::Tally),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A store can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[get("/v1/contests/<contest>/tally")]
pub(crate) async fn tally(contest: &str, stores: &State<Arc<Stores>>) -> Result<Json<Standing>, Problem> {
    let contest = stores.contest_at(contest)?;
    let standing = stores.standing(contest).await.map_err(|error| unavailable(&error))?;
    Ok(Json(Arc::unwrap_or_clone(standing)))
}
