//! Why a vote was not accepted, and the one mapping of that to HTTP and gRPC.

use std::fmt;

use crate::VoteId;

/// A vote that was not accepted: nothing of it will be counted unless it is sent again.
///
/// After [`Reason::QueueFull`] and [`Reason::LogUnavailable`] sending it again with its `vote_id` is safe.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {detail}", reason.slug())]
pub struct Refusal {
    /// The rule.
    pub reason: Reason,
    /// The field at fault.
    pub field: Option<Box<str>>,
    /// What is wrong and what to do, for a person.
    pub detail: String,
    /// The client's id or the one made at the door, once it is known.
    pub vote_id: Option<VoteId>,
}

impl Refusal {
    /// A refusal that is about no single field.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, field: None, detail: detail.into(), vote_id: None }
    }

    /// A wrong field. The detail begins with the field's name.
    pub fn field(field: &str, detail: impl fmt::Display) -> Self {
        Self {
            reason: Reason::InvalidField,
            field: Some(field.into()),
            detail: format!("{field}: {detail}"),
            vote_id: None,
        }
    }
}

/// The rules by which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not a vote in the format that the media type promises.
    MalformedBody,
    /// The body did not come in time.
    SlowBody,
    /// More bytes or more votes than one request may have.
    TooLarge,
    /// A media type or content encoding that the door does not read.
    UnsupportedMediaType,
    /// A field is missing, unknown, repeated, of the wrong type or out of range.
    InvalidField,
    /// The contest needs a voter.
    VoterRequired,
    /// No such contest.
    UnknownContest,
    /// The band is no candidate of the contest.
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

/// A rule's row in the mapping to the wire.
struct Row {
    slug: &'static str,
    title: &'static str,
    http: u16,
    grpc: i32,
}

impl Reason {
    /// All of them.
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

    /// HTTP: RFC 9110; gRPC: <https://grpc.io/docs/guides/status-codes/>.
    fn row(self) -> Row {
        let row = |slug, title, http, grpc| Row { slug, title, http, grpc };
        match self {
            Self::MalformedBody => row("malformed-body", "The body can't be read", 400, 3),
            Self::SlowBody => row("slow-body", "The body did not come in time", 408, 4),
            Self::TooLarge => row("too-large", "The request is too large", 413, 3),
            Self::UnsupportedMediaType => row("unsupported-media-type", "The media type is not supported", 415, 3),
            Self::InvalidField => row("invalid-field", "A field is invalid", 422, 3),
            Self::VoterRequired => row("voter-required", "The contest needs a voter", 422, 3),
            Self::UnknownContest => row("unknown-contest", "There is no such contest", 404, 5),
            Self::NotACandidate => row("not-a-candidate", "The band is no candidate", 403, 7),
            Self::NotOpenYet => row("not-open-yet", "The contest has not opened yet", 403, 7),
            Self::Closed => row("closed", "The contest has closed", 403, 7),
            Self::QueueFull => row("queue-full", "Too many votes are waiting", 503, 8),
            Self::LogUnavailable => row("log-unavailable", "The vote log did not confirm the vote", 503, 14),
        }
    }

    /// The rule's name on the wire and in metrics.
    pub fn slug(self) -> &'static str {
        self.row().slug
    }

    /// The rule of this name.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.slug() == slug)
    }

    /// A short sentence for people.
    pub fn title(self) -> &'static str {
        self.row().title
    }

    /// The HTTP status.
    pub fn http_status(self) -> u16 {
        self.row().http
    }

    /// The gRPC status code.
    pub fn grpc_code(self) -> i32 {
        self.row().grpc
    }

    /// Whether the same request may succeed later; then [`Self::RETRY_AFTER_SECONDS`] says when.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::QueueFull | Self::LogUnavailable)
    }

    /// What `Retry-After` and `google.rpc.RetryInfo` say.
    pub const RETRY_AFTER_SECONDS: u64 = 1;
}
