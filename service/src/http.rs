//! How our Rocket servers start, answer errors and drain.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use rocket::{
    Build, Data, Orbit, Request, Response, Rocket, Route, catch, catchers,
    config::{Ident, LogLevel},
    fairing::{Fairing, Info, Kind},
    http::{ContentType, Header, Status},
    local::asynchronous::Client,
    response::Responder,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use uuid::Uuid;
use votes::{Reason, Refusal, VoteId};

use crate::connections;
pub use crate::connections::RequestBody;

/// Why a server ended early.
#[derive(Debug, thiserror::Error)]
#[error("{server} can't listen on {address}: {problem}")]
pub struct ServeError {
    server: &'static str,
    address: SocketAddr,
    problem: String,
}

impl ServeError {
    /// Names the server, its address and what happened.
    pub fn new(server: &'static str, address: SocketAddr, problem: &impl ToString) -> Self {
        Self { server, address, problem: problem.to_string() }
    }
}

/// A Rocket with our manners: request ids, response times, and problems as the answer to every error.
pub fn rocket() -> Rocket<Build> {
    rocket::build().attach(Manners).register("/", catchers![any_error])
}

/// Serves until shutdown, then drains. `bound` is told the address, which has the real port where `address` asked for 0.
///
/// # Errors
/// If the address can't be bound.
pub async fn serve(
    server: &'static str,
    rocket: Rocket<Build>,
    address: SocketAddr,
    shutdown: CancellationToken,
    bound: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Result<(), ServeError> {
    let config = rocket::Config {
        ident: Ident::none(),
        log_level: LogLevel::Off,
        cli_colors: false,
        ..rocket::Config::release_default()
    };
    let client = Client::untracked(rocket.configure(config)).await;
    let client = client.map_err(|error| ServeError::new(server, address, &error.kind()))?;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::new(server, address, &error))?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(server, %address, "listening");
    bound(address);
    connections::serve(listener, client, shutdown).await;
    Ok(())
}

/// An error document (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:ovation:` and the rule's slug; `about:blank` where the status says it all.
    #[serde(rename = "type")]
    #[schema(example = "urn:ovation:invalid-field")]
    pub kind: String,
    /// A short sentence that is the same for every problem of this type.
    pub title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong in this request, and the way out.
    pub detail: String,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub field: Option<Box<str>>,
    /// The vote's id: casting it again with this id is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    pub vote_id: Option<VoteId>,
    #[serde(skip)]
    is_retryable: bool,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.reason;
        Self {
            kind: format!("urn:ovation:{}", reason.slug()),
            title: reason.title().to_owned(),
            status: reason.http_status(),
            detail: refusal.detail,
            field: refusal.field,
            vote_id: refusal.vote_id,
            is_retryable: reason.is_retryable(),
        }
    }
}

impl Problem {
    /// A problem that has no rule of ours, only an HTTP status.
    pub fn plain(status: Status, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.reason_lossy().to_owned(),
            status: status.code,
            detail: detail.into(),
            field: None,
            vote_id: None,
            is_retryable: status == Status::ServiceUnavailable,
        }
    }
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, _: &'r Request<'_>) -> rocket::response::Result<'static> {
        let body = serde_json::to_vec(&self).map_err(|_| Status::InternalServerError)?;
        let mut response = Response::build();
        response
            .status(Status::new(self.status))
            .header(ContentType::new("application", "problem+json"))
            .sized_body(body.len(), std::io::Cursor::new(body));
        if self.is_retryable {
            response.header(Header::new("Retry-After", Reason::RETRY_AFTER_SECONDS.to_string()));
        }
        response.ok()
    }
}

#[catch(default)]
fn any_error(status: Status, request: &Request<'_>) -> ErrorAnswer {
    let (method, path) = (request.method(), request.uri().path());
    let allowed = if status == Status::NotFound { methods_at(path.as_str(), request.rocket()) } else { Vec::new() };
    let (status, detail) = match status.code {
        404 if allowed.is_empty() => (status, format!("there is no {path}")),
        404 => (Status::MethodNotAllowed, format!("{path} takes {}, not {method}", allowed.join(", "))),
        401 => (status, format!("{path} is for who has the token: send the header Authorization: Bearer TOKEN")),
        _ => (status, format!("{method} {path}: {}", status.reason_lossy())),
    };
    ErrorAnswer { problem: Problem::plain(status, detail), allowed }
}

struct ErrorAnswer {
    problem: Problem,
    /// The methods that the path takes, if the problem is that it does not take this one.
    allowed: Vec<&'static str>,
}

impl<'r> Responder<'r, 'static> for ErrorAnswer {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        let mut response = self.problem.respond_to(request)?;
        if response.status() == Status::Unauthorized {
            response.set_header(Header::new("WWW-Authenticate", "Bearer realm=\"ovation\""));
        }
        if !self.allowed.is_empty() {
            response.set_header(Header::new("Allow", self.allowed.join(", ")));
        }
        Ok(response)
    }
}

/// Rocket routes by method and path at once, so it can't tell a wrong method from a wrong path.
fn methods_at(path: &str, rocket: &Rocket<Orbit>) -> Vec<&'static str> {
    let is_at = |route: &&Route| {
        let (mut pattern, mut path) = (route.uri.path().split('/'), path.split('/'));
        loop {
            match (pattern.next(), path.next()) {
                (None, None) => return true,
                (Some(rest), _) if rest.ends_with("..>") => return true,
                (Some(part), Some(given)) if part == given || part.starts_with('<') => {}
                _ => return false,
            }
        }
    };
    let methods: BTreeSet<_> = rocket.routes().filter(is_at).map(|route| route.method.as_str()).collect();
    methods.into_iter().collect()
}

/// Gives every response an `X-Request-Id`, the client's where it sent one, an `X-Response-Time` in milliseconds, and its
/// length where that is known.
struct Manners;

struct Arrival {
    at: Instant,
    id: String,
}

#[rocket::async_trait]
impl Fairing for Manners {
    fn info(&self) -> Info {
        Info { name: "manners", kind: Kind::Request | Kind::Response }
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

/// The client's `X-Request-Id` if it is short and printable, else a new one.
fn request_id(request: &Request<'_>) -> String {
    let is_plain = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    request.headers().get_one("X-Request-Id").filter(is_plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}
