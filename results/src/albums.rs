//! `GET /v1/contests/{contest}/albums`: the leading albums.

use std::sync::Arc;

use rocket::{State, get, serde::json::Json};
use serde::Serialize;
use service::http::Problem;
use utoipa::ToSchema;
use votes::{AlbumVotes, ContestId};

use crate::{
    openapi,
    parameters::{Count, Parameters},
    stores::{Stores, unavailable},
};

/// The leading albums of a contest.
#[derive(Serialize, ToSchema)]
pub(crate) struct Albums {
    /// The contest.
    #[schema(value_type = String, example = "bands")]
    contest: ContestId,
    /// Most votes first.
    #[schema(value_type = Vec<openapi::AlbumVotes>)]
    albums: Vec<AlbumVotes>,
}

/// The leading albums of a contest, of the votes that name one.
#[utoipa::path(
    tag = "contests",
    params(
        ("contest" = String, Path, description = "The contest's slug", example = "bands"),
        ("top" = Option<u16>, Query, description = "How many, 1 to 1000; 100 if absent", example = 100),
    ),
    responses(
        (status = 200, description = "Albums, most votes first", body = Albums),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The tallies can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[get("/v1/contests/<contest>/albums?<parameters..>")]
pub(crate) async fn albums(
    contest: &str,
    mut parameters: Parameters<'_>,
    stores: &State<Arc<Stores>>,
) -> Result<Json<Albums>, Problem> {
    let contest = stores.contest_at(contest)?;
    let top = parameters.take::<Count>("top")?.unwrap_or_default();
    parameters.end()?;
    let albums = stores.albums(contest, top.get()).await.map_err(|error| unavailable(&error))?;
    Ok(Json(Albums { contest: contest.clone(), albums }))
}
