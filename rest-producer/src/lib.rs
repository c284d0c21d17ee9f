//! The REST door: takes votes over HTTP and answers when the vote log has them.
//!
//! | what | file |
//! |---|---|
//! | `POST /v1/votes` | `single` |
//! | `POST /v1/votes/batch` | `batch` |
//! | what both take from the request's headers | `headers` |
//! | reading a body that is late, or larger than it may be | `body` |
//! | where one vote of a batch ends and the next begins | `split` |
//! | what is answered | `receipt` |
//! | passing votes on to the gRPC producer, instead of putting them on the log | `forward` |
//! | `GET /openapi.json`, generated from all of these | `openapi` |
//!
//! A vote's meaning is not in here: that is [`votes::Door`].

mod batch;
mod body;
mod forward;
mod headers;
mod openapi;
mod receipt;
mod single;
mod split;

use std::net::SocketAddr;

pub use body::Patience;
pub use forward::Forwarder;
use rocket::{
    Build, Rocket, get, routes,
    shield::{NoSniff, Shield},
};
use service::{
    CancellationToken,
    door::MeteredDoor,
    http::{self, ServeError},
    requests::HttpRequests,
};

/// Serves the door until shutdown, then lets open requests finish. `bound` is told the address.
///
/// # Errors
/// If the address can't be bound.
pub async fn run(
    address: SocketAddr,
    door: MeteredDoor,
    shutdown: CancellationToken,
    bound: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Result<(), ServeError> {
    run_with(address, door, Patience::default(), shutdown, bound).await
}

/// As [`run`], with another patience for slow bodies.
///
/// # Errors
/// If the address can't be bound.
pub async fn run_with(
    address: SocketAddr,
    door: MeteredDoor,
    patience: Patience,
    shutdown: CancellationToken,
    bound: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Result<(), ServeError> {
    http::serve("rest", stage(door, patience), address, shutdown, bound).await
}

fn stage(door: MeteredDoor, patience: Patience) -> Rocket<Build> {
    // Of Rocket's headers for browsers only the one that means something for JSON: each costs every answer.
    let shield = Shield::new().enable(NoSniff::default());
    // What it takes a vote through here and through the gRPC door is neither door's latency.
    let name = if door.is_forwarding() { "forward" } else { "rest" };
    http::rocket()
        .attach(shield)
        .attach(HttpRequests::new(name))
        .manage(door)
        .manage(patience)
        .manage(openapi::document())
        .mount("/", routes![welcome, single::cast_vote, batch::cast_votes, openapi::openapi])
}

/// Says where votes go.
#[utoipa::path(
    tag = "about",
    responses((status = 200, description = "Where to post votes", content_type = "text/plain", body = String)),
)]
#[get("/")]
fn welcome() -> &'static str {
    "Ovation takes votes here.\n\n\
     POST /v1/votes        one vote, application/json: {\"name\":\"Pink Floyd\"}\n\
     POST /v1/votes/batch  up to 10000 votes, a JSON array or application/x-ndjson\n\
     GET  /openapi.json    everything else\n"
}
