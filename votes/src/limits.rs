//! The limits of a request: how large it may be, and how long its body may take to arrive.

use std::time::Duration;

use crate::refusal::{Reason, Refusal};

/// The largest body of one vote, in bytes, in any encoding.
pub const MAX_VOTE_BYTES: usize = 16 * 1024;

/// The maximum number of votes in one batch.
pub const MAX_BATCH_VOTES: usize = 10_000;

/// The longest time that a client may take to send one vote.
pub const VOTE_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the refusal of a vote that has more than [`MAX_VOTE_BYTES`].
pub fn vote_too_large() -> Refusal {
    Refusal::new(Reason::TooLarge, format!("a vote has at most {MAX_VOTE_BYTES} bytes"))
}
