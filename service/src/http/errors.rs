//! Converts the errors that Rocket itself reports to problems: unknown paths, wrong methods, and requests that a guard
//! rejects.

use std::collections::BTreeSet;

use rocket::{
    Orbit, Request, Rocket, Route, catch,
    http::{Header, Status},
    response::Responder,
};

use super::problem::Problem;

#[catch(default)]
pub(crate) fn any_error(status: Status, request: &Request<'_>) -> ErrorResponse {
    let (method, path) = (request.method(), request.uri().path());
    let allowed = if status == Status::NotFound { methods_at(path.as_str(), request.rocket()) } else { Vec::new() };
    let (status, detail) = match status.code {
        404 if allowed.is_empty() => (status, format!("{path} does not exist")),
        404 => (Status::MethodNotAllowed, format!("{path} supports {}, not {method}", allowed.join(", "))),
        401 => (status, format!("{path} requires the token: send the header Authorization: Bearer TOKEN")),
        _ => (status, format!("{method} {path}: {}", status.reason_lossy())),
    };
    ErrorResponse { problem: Problem::plain(status, detail), allowed }
}

pub(crate) struct ErrorResponse {
    problem: Problem,
    /// The methods that the path supports, if it does not support the request's method.
    allowed: Vec<&'static str>,
}

impl<'r> Responder<'r, 'static> for ErrorResponse {
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

/// Returns the methods of all routes to this path. Rocket matches the method and the path together, so it reports a
/// request with a wrong method as a request to an unknown path.
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
