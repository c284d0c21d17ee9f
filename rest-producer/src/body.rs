//! Reads the bodies of requests, with limits on their size and on the time until they have arrived.

use std::time::Duration;

use service::http::RequestBody;
use tokio::time::{Instant, timeout, timeout_at};
use votes::{MAX_BATCH_VOTES, MAX_VOTE_BYTES, Reason, Refusal, VOTE_BODY_TIMEOUT, vote_too_large};

/// How long a body may take to arrive.
#[derive(Clone, Copy, Debug)]
pub struct BodyTimeouts {
    /// The timeout for the body of a single vote, and for the next bytes of a batch.
    pub vote: Duration,
    /// The timeout for a whole batch.
    pub batch: Duration,
}

impl Default for BodyTimeouts {
    fn default() -> Self {
        Self { vote: VOTE_BODY_TIMEOUT, batch: Duration::from_mins(1) }
    }
}

/// The maximum number of bytes of a refused body that are still read. Many clients read the response only after they
/// have sent the body. If the server closed the connection earlier, such a client would not receive the response.
const MAX_DRAINED_BYTES: usize = 1024 * 1024;

/// The maximum size of a batch, in bytes: the maximum number of votes of the maximum size, and 1 KiB of white space for
/// each vote.
const MAX_BATCH_BYTES: usize = MAX_BATCH_VOTES * (MAX_VOTE_BYTES + 1024);

/// The body of a request while it arrives.
pub(crate) struct Body {
    source: RequestBody,
    timeouts: BodyTimeouts,
    deadline: Instant,
    /// The number of bytes of a batch that were read.
    bytes_read: usize,
}

impl Body {
    /// Wraps a body. The timeout of a batch starts now.
    pub(crate) fn new(source: RequestBody, timeouts: BodyTimeouts) -> Self {
        Self { source, timeouts, deadline: Instant::now() + timeouts.batch, bytes_read: 0 }
    }

    /// Reads the whole body as one vote.
    ///
    /// # Errors
    /// - [`Reason::TooLarge`] if the body is too large.
    /// - [`Reason::SlowBody`] after the timeout.
    /// - [`Reason::MalformedBody`] if the body is incomplete.
    pub(crate) async fn vote(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut vote = Vec::new();
        let read = async {
            while let Some(bytes) = self.source.chunk().await.transpose().map_err(incomplete)? {
                if vote.len() + bytes.len() > MAX_VOTE_BYTES {
                    return Err(vote_too_large());
                }
                vote.extend_from_slice(&bytes);
            }
            Ok(())
        };
        timeout(self.timeouts.vote, read).await.unwrap_or_else(|_| Err(too_slow("the body", self.timeouts.vote)))?;
        Ok(vote)
    }

    /// Appends the next bytes of the body to `batch`. Returns `false` at the end of the body. `waiting_since` is the
    /// time at which the caller began to wait for these bytes. You may drop the future: no bytes are lost.
    ///
    /// # Errors
    /// The same as [`vote`](Self::vote).
    pub(crate) async fn chunk(&mut self, batch: &mut Vec<u8>, waiting_since: Instant) -> Result<bool, Refusal> {
        let deadline = self.deadline.min(waiting_since + self.timeouts.vote);
        match timeout_at(deadline, self.source.chunk()).await {
            Ok(None) => Ok(false),
            Ok(Some(bytes)) => {
                let bytes = bytes.map_err(incomplete)?;
                self.bytes_read += bytes.len();
                if self.bytes_read > MAX_BATCH_BYTES {
                    return Err(Refusal::new(Reason::TooLarge, format!("a batch has at most {MAX_BATCH_BYTES} bytes")));
                }
                batch.extend_from_slice(&bytes);
                Ok(true)
            }
            Err(_) if deadline == self.deadline => Err(too_slow("the body", self.timeouts.batch)),
            Err(_) => Err(too_slow("the next part of the body", self.timeouts.vote)),
        }
    }

    /// Reads and discards the rest of a refused body, so that the client receives the response. Does nothing if the
    /// body was too slow. Otherwise reads up to [`MAX_DRAINED_BYTES`], for at most the timeout of a vote.
    pub(crate) async fn drain(mut self, refusal: &Refusal) {
        if refusal.reason == Reason::SlowBody {
            return;
        }
        let mut remaining = MAX_DRAINED_BYTES;
        let read = async {
            while remaining > 0
                && let Some(Ok(bytes)) = self.source.chunk().await
            {
                remaining = remaining.saturating_sub(bytes.len());
            }
        };
        let _ = timeout(self.timeouts.vote, read).await;
    }
}

fn too_slow(what: &str, timeout: Duration) -> Refusal {
    Refusal::new(Reason::SlowBody, format!("{what} did not arrive within {timeout:?}"))
}

fn incomplete(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::MalformedBody, format!("the body is incomplete: {error}"))
}
