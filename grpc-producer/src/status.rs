//! Refusals on the wire: as the status of a call, with details, or as one outcome of a stream.

use proto::v1::{CastVoteResponse, VoteError};
pub(crate) use service::grpc::status;
use service::grpc::{DOOR_CLOSING, retry_later};
use tonic::{Code, Status};
use votes::{Accepted, Reason, Refusal};

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
    let message = "the door is closing; open a new stream and cast there what was not answered, with the same vote_ids";
    retry_later(Code::Unavailable, DOOR_CLOSING, message)
}
