//! Converts refusals to the status of a gRPC call, with details (<https://google.aip.dev/193>).

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use votes::{Reason, Refusal};

/// The `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "ovation";

/// The reason in the status with which a producer ends its streams when it shuts down. Before the status, the producer
/// sends the outcome of each vote that it has read. It did not read the votes without an outcome.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";

/// Converts a refusal to the status of a call.
pub fn refusal_status(refusal: &Refusal) -> Status {
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

/// Creates the status for a temporary error that is not one of [`Reason`]. `reason` must be in `UPPER_SNAKE_CASE`.
pub fn retry_later(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(Duration::from_secs(Reason::RETRY_AFTER_SECONDS)));
    Status::with_error_details(code, message, details)
}

/// Returns whether the status is from one of our servers and has this reason.
pub fn has_reason(status: &Status, reason: &str) -> bool {
    status.get_details_error_info().is_some_and(|info| info.domain == DOMAIN && info.reason == reason)
}
