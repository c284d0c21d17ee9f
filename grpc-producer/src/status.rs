//! Refusals on the wire: as the status of a call, with details, or as one outcome of a stream.

use std::{collections::HashMap, time::Duration};

use proto::v1::{CastVoteResponse, VoteError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use votes::{Accepted, Reason, Refusal};

/// The domain of the reasons (<https://google.aip.dev/193>).
const DOMAIN: &str = "ovation";

/// A refusal as the status of a call.
pub(crate) fn status(refusal: &Refusal) -> Status {
    let reason = refusal.reason.slug().to_uppercase().replace('-', "_");
    let metadata = refusal.vote_id.map(|vote_id| ("vote_id".to_owned(), vote_id.to_string()));
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::from_iter(metadata));
    if let Some(field) = &refusal.field {
        details.add_bad_request_violation(field.to_string(), &refusal.detail);
    }
    if refusal.reason.is_retryable() {
        details.set_retry_info(Some(Duration::from_secs(Reason::RETRY_AFTER_SECONDS)));
    }
    Status::with_error_details(Code::from_i32(refusal.reason.grpc_code()), &refusal.detail, details)
}

/// A refusal as one outcome of a stream.
pub(crate) fn error(refusal: Refusal) -> VoteError {
    VoteError {
        code: refusal.reason.grpc_code(),
        reason: refusal.reason.slug().to_owned(),
        message: refusal.detail,
        field: refusal.field.map(Into::into).unwrap_or_default(),
        vote_id: refusal.vote_id.map(|vote_id| vote_id.to_string()).unwrap_or_default(),
    }
}

/// What the client gets for a vote that the log has.
pub(crate) fn receipt(accepted: &Accepted) -> CastVoteResponse {
    CastVoteResponse {
        vote_id: accepted.vote_id.to_string(),
        contest: accepted.contest.to_string(),
        partition: accepted.receipt.place.partition.0.into(),
        offset: accepted.receipt.place.offset.0,
        accepted_at_ms: accepted.receipt.accepted_at.0,
    }
}

/// What tonic found wrong with the bytes of a call. It calls some of that `INTERNAL`, but it is the client's to mend.
pub(crate) fn unread(problem: &Status) -> Refusal {
    let reason = match problem.code() {
        Code::OutOfRange | Code::ResourceExhausted => Reason::TooLarge,
        _ => Reason::MalformedBody,
    };
    Refusal::new(reason, problem.message())
}

/// The end of a stream whose door closes before the client ended it.
pub(crate) fn leaving() -> Status {
    let mut details = ErrorDetails::with_error_info("DOOR_CLOSING", DOMAIN, HashMap::new());
    details.set_retry_info(Some(Duration::from_secs(Reason::RETRY_AFTER_SECONDS)));
    let message = "the door is closing; open a new stream and cast there what was not answered, with the same vote_ids";
    Status::with_error_details(Code::Unavailable, message, details)
}
