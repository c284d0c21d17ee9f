//! Converts errors to problem documents (RFC 9457).

use rocket::{
    Request, Response,
    http::{ContentType, Header, Status},
    response::Responder,
};
use votes::{Reason, Refusal};

/// An [`api::Problem`] as the response of a route.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The document that the client receives.
    pub document: api::Problem,
    /// Whether the same request may succeed later. If so, the response has `Retry-After`.
    is_retryable: bool,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.reason;
        let document = api::Problem {
            kind: format!("urn:ovation:{}", reason.slug()),
            title: reason.title().to_owned(),
            status: reason.http_status(),
            detail: refusal.detail,
            field: refusal.field,
            vote_id: refusal.vote_id.map(|vote| vote.0),
        };
        Self { document, is_retryable: reason.is_retryable() }
    }
}

impl Problem {
    /// Creates a problem for an error that is not one of [`Reason`] and has only an HTTP status.
    pub fn plain(status: Status, detail: impl Into<String>) -> Self {
        let document = api::Problem {
            kind: "about:blank".to_owned(),
            title: status.reason_lossy().to_owned(),
            status: status.code,
            detail: detail.into(),
            field: None,
            vote_id: None,
        };
        Self { document, is_retryable: status == Status::ServiceUnavailable }
    }
}

impl<'r> Responder<'r, 'static> for Problem {
    fn respond_to(self, _: &'r Request<'_>) -> rocket::response::Result<'static> {
        let body = serde_json::to_vec(&self.document).map_err(|_| Status::InternalServerError)?;
        let mut response = Response::build();
        response
            .status(Status::new(self.document.status))
            .header(ContentType::new("application", "problem+json"))
            .sized_body(body.len(), std::io::Cursor::new(body));
        if self.is_retryable {
            response.header(Header::new("Retry-After", Reason::RETRY_AFTER_SECONDS.to_string()));
        }
        response.ok()
    }
}
