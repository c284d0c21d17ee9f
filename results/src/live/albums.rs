//! `GET /v1/contests/{contest}/albums`: the leading albums.

use std::sync::Arc;

use api::{AlbumVotes, Albums};
use rocket::{State, get, serde::json::Json};
use service::http::Problem;

use super::stores::LiveStores;
use crate::{
    contests::ContestNames,
    parameters::{Count, Parameters},
    problems::{InvalidParameter, StoreUnavailable, UnknownContest, unavailable},
};

/// Returns the leading albums of a contest. Votes without an album are not included.
#[utoipa::path(
    tag = "contests",
    params(
        ("contest" = String, Path, description = "The slug of the contest", example = "bands"),
        ("top" = Option<u16>, Query, description = "The number of albums, 1 to 1000; 100 by default", example = 100),
    ),
    responses(
        (status = 200, description = "The albums; the album with the most votes is the first", body = Albums),
        UnknownContest,
        InvalidParameter,
        StoreUnavailable,
    ),
)]
#[get("/v1/contests/<contest>/albums?<parameters..>")]
pub(crate) async fn albums(
    contest: &str,
    mut parameters: Parameters<'_>,
    contests: &State<ContestNames>,
    stores: &State<Arc<LiveStores>>,
) -> Result<Json<Albums>, Problem> {
    let contest = contests.in_path(contest)?;
    let top = parameters.take::<Count>("top")?.unwrap_or_default();
    parameters.refuse_unknown()?;
    let albums = stores.albums(contest, top.get()).await.map_err(|error| unavailable(&error))?;
    let album = |album: votes::AlbumVotes| AlbumVotes { name: album.name, album: album.album, votes: album.votes };
    Ok(Json(Albums { contest: contest.to_string(), albums: albums.into_iter().map(album).collect() }))
}
