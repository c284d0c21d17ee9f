//! How our gRPC servers say no: a status with details (<https://google.aip.dev/193>).

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use votes::{Reason, Refusal};

/// The domain of the reasons.
const DOMAIN: &str = "ovation";

/// Why a door ends a stream of votes: it leaves. It answered each vote that it took from the stream, and took no other.
pub const DOOR_CLOSING: &str = "DOOR_CLOSING";

/// A refusal as the status of a call.
pub fn status(refusal: &Refusal) -> Status {
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

/// What has no rule of ours, but may succeed later. `reason` is in `UPPER_SNAKE_CASE`.
pub fn retry_later(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(Duration::from_secs(Reason::RETRY_AFTER_SECONDS)));
    Status::with_error_details(code, message, details)
}

/// Whether a server of ours ended a call for that reason.
pub fn has_reason(status: &Status, reason: &str) -> bool {
    status.get_details_error_info().is_some_and(|info| info.domain == DOMAIN && info.reason == reason)
}
