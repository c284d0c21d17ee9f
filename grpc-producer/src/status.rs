//! Converts receipts and refusals to messages and statuses. A refusal is either the status of a call, with details
//! ([`refusal_status`](service::grpc::refusal_status)), or one outcome of a stream.

use proto::v1::{CastVoteResponse, VoteError};
use service::grpc::{SHUTTING_DOWN, retry_later};
use tonic::{Code, Status};
use votes::{Accepted, Reason, Refusal};

/// Converts a refusal to the error of one vote on a stream.
pub(crate) fn vote_error(refusal: Refusal) -> VoteError {
    VoteError {
        code: refusal.reason.grpc_code(),
        reason: refusal.reason.slug().to_owned(),
        message: refusal.detail,
        field: refusal.field.map(Into::into).unwrap_or_default(),
        vote_id: refusal.vote_id.map(|vote_id| vote_id.to_string()).unwrap_or_default(),
    }
}

/// Converts an accepted vote to a receipt.
pub(crate) fn receipt(accepted: &Accepted) -> CastVoteResponse {
    CastVoteResponse {
        vote_id: accepted.vote_id.to_string(),
        contest: accepted.contest.to_string(),
        partition: accepted.receipt.position.partition.0.into(),
        offset: accepted.receipt.position.offset.0,
        accepted_at_ms: accepted.receipt.accepted_at.0,
    }
}

/// Converts the error that tonic returned for the bytes of a call to a refusal. Some of these errors have the code
/// `INTERNAL`, although the mistake is the client's.
pub(crate) fn decode_refusal(problem: &Status) -> Refusal {
    let reason = match problem.code() {
        Code::OutOfRange | Code::ResourceExhausted => Reason::TooLarge,
        _ => Reason::MalformedBody,
    };
    Refusal::new(reason, problem.message())
}

/// Creates the status that ends a stream when the producer shuts down before the client has ended the stream.
pub(crate) fn shutting_down_status() -> Status {
    let message =
        "the producer is shutting down; cast the votes without an outcome on a new stream, with the same vote_ids";
    retry_later(Code::Unavailable, SHUTTING_DOWN, message)
}
