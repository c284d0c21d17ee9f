//! `GET /`: a list of the routes.

use rocket::get;

/// Lists the routes.
#[utoipa::path(
    tag = "about",
    responses((status = 200, description = "The routes of the REST producer", content_type = "text/plain", body = String)),
)]
#[get("/")]
pub(crate) fn welcome() -> &'static str {
    "This is the REST producer of Ovation. It accepts votes.\n\n\
     POST /v1/votes        one vote, application/json: {\"name\":\"Pink Floyd\"}\n\
     POST /v1/votes/batch  up to 10000 votes, a JSON array or application/x-ndjson\n\
     GET  /openapi.json    the description of this API\n"
}
