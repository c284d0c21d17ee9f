//! The headers of the requests with votes, of one vote or of a batch.

use rocket::{
    Request,
    http::MediaType,
    request::{FromRequest, Outcome},
};
use service::{
    client_ip::{FORWARDED_FOR, Network},
    ingest::MeteredIngest,
};
use votes::{Reason, Refusal, VoteMetadata, VoteRequest};

use crate::split::Framing;

/// The headers of a request with votes.
pub(crate) struct VoteHeaders<'r> {
    content_type: Option<&'r str>,
    content_encoding: Option<&'r str>,
    idempotency_keys: Vec<&'r str>,
    traceparent: Option<&'r str>,
    /// The network of the client, if it is known.
    pub(crate) network: Option<Network>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for VoteHeaders<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let headers = request.headers();
        let ingest = request.rocket().state::<MeteredIngest>();
        Outcome::Success(Self {
            content_type: headers.get_one("Content-Type"),
            content_encoding: headers.get_one("Content-Encoding"),
            idempotency_keys: headers.get(VoteMetadata::IDEMPOTENCY_KEY).collect(),
            traceparent: headers.get_one(VoteMetadata::TRACEPARENT),
            network: ingest.and_then(|ingest| ingest.network(request.remote(), headers.get(FORWARDED_FOR))),
        })
    }
}

impl VoteHeaders<'_> {
    /// Checks that the body is JSON without a content encoding, as for a single vote.
    ///
    /// # Errors
    /// [`Reason::UnsupportedMediaType`].
    pub(crate) fn check_vote_type(&self) -> Result<(), Refusal> {
        self.check_no_encoding()?;
        match self.media_type() {
            Some(MediaKind::Json) => Ok(()),
            _ => Err(self.unsupported("application/json")),
        }
    }

    /// Returns the framing of a batch according to its media type.
    ///
    /// # Errors
    /// [`Reason::UnsupportedMediaType`].
    pub(crate) fn framing(&self) -> Result<Framing, Refusal> {
        self.check_no_encoding()?;
        match self.media_type() {
            Some(MediaKind::Json) => Ok(Framing::Array),
            Some(MediaKind::Lines) => Ok(Framing::Lines),
            None => Err(self.unsupported("application/json or application/x-ndjson")),
        }
    }

    /// Adds the idempotency key and the trace of the headers to a vote.
    ///
    /// # Errors
    /// [`Reason::InvalidField`] if the idempotency key is invalid.
    pub(crate) fn complete(&self, request: VoteRequest) -> Result<VoteRequest, Refusal> {
        let metadata = VoteMetadata::read(self.idempotency_keys.iter().copied().map(Some), self.traceparent)?;
        Ok(request.with_metadata(metadata))
    }

    /// Adds the trace of the headers to a vote of a batch. A batch has no idempotency key, see
    /// [`check_no_key`](Self::check_no_key).
    pub(crate) fn complete_batch_vote(&self, request: VoteRequest) -> VoteRequest {
        VoteRequest { traceparent: self.traceparent.map(str::to_owned), ..request }
    }

    /// Checks that there is no idempotency key, because one key can't identify many votes.
    ///
    /// # Errors
    /// [`Reason::InvalidField`].
    pub(crate) fn check_no_key(&self) -> Result<(), Refusal> {
        if self.idempotency_keys.is_empty() { Ok(()) } else { Err(VoteMetadata::key_with_many_votes("in a batch")) }
    }

    fn check_no_encoding(&self) -> Result<(), Refusal> {
        match self.content_encoding.map(str::trim) {
            None => Ok(()),
            Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
            Some(encoding) => Err(Refusal::new(
                Reason::UnsupportedMediaType,
                format!("the content encoding {encoding:?} is not supported; send the body without an encoding"),
            )),
        }
    }

    fn media_type(&self) -> Option<MediaKind> {
        let media: MediaType = self.content_type?.parse().ok()?;
        // JSON is UTF-8 (RFC 8259, section 8.1). A body in another charset would be misread.
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
            None => format!("the content type is missing; send {supported}"),
        };
        Refusal::new(Reason::UnsupportedMediaType, detail)
    }
}

enum MediaKind {
    Json,
    Lines,
}
