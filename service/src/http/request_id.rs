//! Adds the headers that every response has.

use std::time::Instant;

use rocket::{
    Data, Request, Response,
    fairing::{Fairing, Info, Kind},
    http::Header,
};
use uuid::Uuid;

/// Adds `X-Request-Id` and `X-Response-Time` (in milliseconds) to every response, and `Content-Length` if the length is
/// known.
pub(crate) struct RequestId;

struct Arrival {
    at: Instant,
    id: String,
}

#[rocket::async_trait]
impl Fairing for RequestId {
    fn info(&self) -> Info {
        Info { name: "request id", kind: Kind::Request | Kind::Response }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        arrival(request);
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        if let Some(length) = response.body_mut().size().await {
            response.set_header(Header::new("Content-Length", length.to_string()));
        }
        let Arrival { at, id } = arrival(request);
        response.set_header(Header::new("X-Request-Id", id.as_str()));
        let micros = at.elapsed().as_micros();
        response.set_header(Header::new("X-Response-Time", format!("{}.{:03}ms", micros / 1_000, micros % 1_000)));
    }
}

fn arrival<'r>(request: &'r Request<'_>) -> &'r Arrival {
    request.local_cache(|| Arrival { at: Instant::now(), id: request_id(request) })
}

/// Returns the client's `X-Request-Id` if it is short and printable, else a new id.
fn request_id(request: &Request<'_>) -> String {
    let is_plain = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    request.headers().get_one("X-Request-Id").filter(is_plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
