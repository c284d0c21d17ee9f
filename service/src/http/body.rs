//! The bodies of requests. Rocket does not read them: a route takes the body from the local cache of the request.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use rocket::{
    Request,
    http::Status,
    request::{FromRequest, Outcome},
};

/// The body of a request as it arrives. A route can take it once.
#[derive(Debug)]
pub struct RequestBody(Incoming);

impl RequestBody {
    /// Returns the next bytes, or `None` at the end of the body.
    ///
    /// # Errors
    /// If the connection breaks before the end of the body, or the transfer encoding is invalid.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.0.frame().await?.map(Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Holds a body until a route takes it.
struct BodySlot(Mutex<Option<RequestBody>>);

/// Attaches a body to its request, from which a route can take it.
pub(super) fn attach(body: Incoming, request: &Request<'_>) {
    request.local_cache(|| BodySlot(Mutex::new(Some(RequestBody(body)))));
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestBody {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let slot = request.local_cache(|| BodySlot(Mutex::new(None)));
        match slot.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(body) => Outcome::Success(body),
            None => Outcome::Error((Status::InternalServerError, ())),
        }
    }
}
