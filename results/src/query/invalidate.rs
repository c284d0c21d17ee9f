//! `POST /v1/cache/invalidate`: clears all cached responses.

use api::Cleared;
use rocket::{State, post, serde::json::Json};
use service::http::Problem;

use super::reader::Reader;
use crate::{
    access::Authorized,
    problems::{StoreUnavailable, TokenRequired, unavailable},
};

/// Clears all cached responses.
///
/// Counted votes and added rows make a cached response out of date automatically. You need this only after you changed
/// the ledger or a dataset by hand.
#[utoipa::path(
    tag = "votes",
    responses(
        (status = 200, description = "The cached responses were cleared", body = Cleared),
        TokenRequired,
        StoreUnavailable,
    ),
    security(("token" = []), ()),
)]
#[post("/v1/cache/invalidate")]
pub(crate) async fn invalidate(_authorized: Authorized, reader: &State<Reader>) -> Result<Json<Cleared>, Problem> {
    let cleared = reader.clear().await.map_err(|error| unavailable(&error))?;
    Ok(Json(Cleared { cleared }))
}
