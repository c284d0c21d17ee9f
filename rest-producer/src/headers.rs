//! What both routes take from a request's headers.

use rocket::{
    Request,
    http::MediaType,
    request::{FromRequest, Outcome},
};
use service::{
    client::{FORWARDED_FOR, Network},
    door::MeteredDoor,
};
use votes::{Reason, Refusal, VoteRequest};

use crate::split::Framing;

/// The headers of a request that brings votes.
pub(crate) struct VoteHeaders<'r> {
    content_type: Option<&'r str>,
    content_encoding: Option<&'r str>,
    idempotency_keys: Vec<&'r str>,
    traceparent: Option<&'r str>,
    /// Where the request came from.
    pub(crate) network: Option<Network>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for VoteHeaders<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let headers = request.headers();
        let door = request.rocket().state::<MeteredDoor>();
        Outcome::Success(Self {
            content_type: headers.get_one("Content-Type"),
            content_encoding: headers.get_one("Content-Encoding"),
            idempotency_keys: headers.get("Idempotency-Key").collect(),
            traceparent: headers.get_one("traceparent"),
            network: door.and_then(|door| door.network(request.remote(), headers.get(FORWARDED_FOR))),
        })
    }
}

impl VoteHeaders<'_> {
    /// Asks for a single vote's media type.
    pub(crate) fn is_vote(&self) -> Result<(), Refusal> {
        self.is_plain()?;
        match self.media_type() {
            Some(MediaKind::Json) => Ok(()),
            _ => Err(self.unsupported("application/json")),
        }
    }

    /// How the votes of a batch are framed, by its media type.
    pub(crate) fn framing(&self) -> Result<Framing, Refusal> {
        self.is_plain()?;
        match self.media_type() {
            Some(MediaKind::Json) => Ok(Framing::Array),
            Some(MediaKind::Lines) => Ok(Framing::Lines),
            None => Err(self.unsupported("application/json or application/x-ndjson")),
        }
    }

    /// Gives a vote what the headers say of it.
    pub(crate) fn complete(&self, request: VoteRequest) -> Result<VoteRequest, Refusal> {
        let idempotency_key = match self.idempotency_keys[..] {
            [] => None,
            [key] => Some(key.to_owned()),
            _ => return Err(Refusal::field("Idempotency-Key", "given twice")),
        };
        let traceparent = self.traceparent.map(str::to_owned);
        Ok(VoteRequest { idempotency_key, traceparent, ..request })
    }

    /// The same for a vote of a batch, which has no key of its own in the headers.
    pub(crate) fn complete_one_of_many(&self, request: VoteRequest) -> VoteRequest {
        VoteRequest { traceparent: self.traceparent.map(str::to_owned), ..request }
    }

    /// One key can't stand for many votes.
    pub(crate) fn has_no_key(&self) -> Result<(), Refusal> {
        if self.idempotency_keys.is_empty() {
            return Ok(());
        }
        let detail = "is for a single vote; in a batch each vote carries its own vote_id";
        Err(Refusal::field("Idempotency-Key", detail))
    }

    fn is_plain(&self) -> Result<(), Refusal> {
        match self.content_encoding.map(str::trim) {
            None => Ok(()),
            Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
            Some(encoding) => Err(Refusal::new(
                Reason::UnsupportedMediaType,
                format!("the content encoding {encoding:?} is not supported; send the body as it is"),
            )),
        }
    }

    fn media_type(&self) -> Option<MediaKind> {
        let media: MediaType = self.content_type?.parse().ok()?;
        // JSON is UTF-8 (RFC 8259, section 8.1); in another charset it would be misread.
        let is_utf8 = media.params().all(|(name, value)| name != "charset" || value.eq_ignore_ascii_case("utf-8"));
        let is = |subtype: &str| is_utf8 && media.top() == "application" && media.sub() == subtype;
        match () {
            () if is("json") => Some(MediaKind::Json),
            () if is("x-ndjson") => Some(MediaKind::Lines),
            () => None,
        }
    }

    fn unsupported(&self, supported: &str) -> Refusal {
        let detail = match self.content_type {
            Some(given) => format!("the content type {given:?} is not supported here; send {supported}"),
            None => format!("there is no content type; send {supported}"),
        };
        Refusal::new(Reason::UnsupportedMediaType, detail)
    }
}

enum MediaKind {
    Json,
    Lines,
}
