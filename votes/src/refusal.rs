//! The reasons why a vote was not accepted, and the only mapping of these reasons to HTTP and gRPC.

use std::fmt;

use crate::ids::VoteId;

/// The refusal of a vote. The client may send the vote again with the same `vote_id`. The vote is then counted once,
/// even if the log has it already, which is possible after [`Reason::LogUnavailable`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {detail}", reason.slug())]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The invalid field.
    pub field: Option<Box<str>>,
    /// What is wrong and what to do, as text for people.
    pub detail: String,
    /// The vote's id, from the client or from the producer, if the id is known.
    pub vote_id: Option<VoteId>,
}

impl Refusal {
    /// Creates a refusal that is not about one field.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, field: None, detail: detail.into(), vote_id: None }
    }

    /// Creates the refusal of an invalid field. The detail begins with the field's name.
    pub fn field(field: &str, detail: impl fmt::Display) -> Self {
        Self {
            reason: Reason::InvalidField,
            field: Some(field.into()),
            detail: format!("{field}: {detail}"),
            vote_id: None,
        }
    }
}

/// The reasons for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The body is not a vote in the format of its media type.
    MalformedBody,
    /// The body did not arrive in time.
    SlowBody,
    /// The request has too many bytes or too many votes.
    TooLarge,
    /// The producer does not read this media type or content encoding.
    UnsupportedMediaType,
    /// A field is missing, unknown, repeated, of the wrong type or out of range.
    InvalidField,
    /// The contest requires a voter.
    VoterRequired,
    /// There is no such contest.
    UnknownContest,
    /// The band is not a candidate of the contest.
    NotACandidate,
    /// The contest has not opened yet.
    NotOpenYet,
    /// The contest has closed.
    Closed,
    /// Too many votes are waiting for the log.
    QueueFull,
    /// The log did not confirm the vote.
    LogUnavailable,
}

/// How a reason appears in responses.
struct Mapping {
    slug: &'static str,
    title: &'static str,
    http: u16,
    grpc: i32,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 12] = [
        Self::MalformedBody,
        Self::SlowBody,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidField,
        Self::VoterRequired,
        Self::UnknownContest,
        Self::NotACandidate,
        Self::NotOpenYet,
        Self::Closed,
        Self::QueueFull,
        Self::LogUnavailable,
    ];

    /// Returns the mapping. RFC 9110 defines the HTTP statuses, and <https://grpc.io/docs/guides/status-codes/> the
    /// gRPC codes.
    fn mapping(self) -> Mapping {
        let map = |slug, title, http, grpc| Mapping { slug, title, http, grpc };
        match self {
            Self::MalformedBody => map("malformed-body", "The body can't be read", 400, 3),
            Self::SlowBody => map("slow-body", "The body did not arrive in time", 408, 4),
            Self::TooLarge => map("too-large", "The request is too large", 413, 3),
            Self::UnsupportedMediaType => map("unsupported-media-type", "The media type is not supported", 415, 3),
            Self::InvalidField => map("invalid-field", "A field is invalid", 422, 3),
            Self::VoterRequired => map("voter-required", "The contest requires a voter", 422, 3),
            Self::UnknownContest => map("unknown-contest", "There is no such contest", 404, 5),
            Self::NotACandidate => map("not-a-candidate", "The band is not a candidate", 403, 7),
            Self::NotOpenYet => map("not-open-yet", "The contest has not opened yet", 403, 7),
            Self::Closed => map("closed", "The contest has closed", 403, 7),
            Self::QueueFull => map("queue-full", "Too many votes are waiting", 503, 8),
            Self::LogUnavailable => map("log-unavailable", "The vote log did not confirm the vote", 503, 14),
        }
    }

    /// Returns the name of the reason in responses and in metrics.
    pub fn slug(self) -> &'static str {
        self.mapping().slug
    }

    /// Returns the reason with this name.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.slug() == slug)
    }

    /// Returns a short sentence for people.
    pub fn title(self) -> &'static str {
        self.mapping().title
    }

    /// Returns the HTTP status.
    pub fn http_status(self) -> u16 {
        self.mapping().http
    }

    /// Returns the gRPC status code.
    pub fn grpc_code(self) -> i32 {
        self.mapping().grpc
    }

    /// Returns whether the same request may succeed after [`Self::RETRY_AFTER_SECONDS`].
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::QueueFull | Self::LogUnavailable)
    }

    /// The value of `Retry-After` and `google.rpc.RetryInfo`, in seconds.
    pub const RETRY_AFTER_SECONDS: u64 = 1;
}
