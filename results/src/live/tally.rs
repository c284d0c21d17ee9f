//! `GET /v1/contests` and `GET /v1/contests/{contest}/tally`: the contests and their tallies.

use std::sync::Arc;

use api::{ContestList, ContestName, Tally};
use rocket::{State, get, serde::json::Json};
use service::http::Problem;

use super::stores::LiveStores;
use crate::{
    contests::ContestNames,
    problems::{StoreUnavailable, UnknownContest, unavailable},
};

/// Returns all contests, sorted by slug.
#[utoipa::path(
    tag = "contests",
    responses((status = 200, description = "The configured contests", body = ContestList)),
)]
#[get("/v1/contests")]
pub(crate) fn contests(contests: &State<ContestNames>) -> Json<ContestList> {
    let contests = contests.all().map(|contest| ContestName { contest: contest.to_string() });
    Json(ContestList { contests: contests.collect() })
}

/// Returns the tally of a contest.
#[utoipa::path(
    tag = "contests",
    params(("contest" = String, Path, description = "The slug of the contest", example = "bands")),
    responses(
        (status = 200, description = "The tally, read after the request arrived", body = Tally),
        UnknownContest,
        StoreUnavailable,
    ),
)]
#[get("/v1/contests/<contest>/tally")]
pub(crate) async fn tally(
    contest: &str,
    contests: &State<ContestNames>,
    stores: &State<Arc<LiveStores>>,
) -> Result<Json<Tally>, Problem> {
    let contest = contests.in_path(contest)?;
    let contest_tally = stores.contest_tally(contest).await.map_err(|error| unavailable(&error))?;
    Ok(Json(contest_tally.to_api()))
}
