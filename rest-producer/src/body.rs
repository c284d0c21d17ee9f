//! Reads bodies, with bounds on their size and on the time they take.

use std::time::Duration;

use service::http::RequestBody;
use tokio::time::{Instant, timeout, timeout_at};
use votes::{MAX_BATCH_VOTES, MAX_VOTE_BYTES, Reason, Refusal};

/// How long a body may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a single vote, and for the next bytes of a batch.
    pub vote: Duration,
    /// For a whole batch.
    pub batch: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { vote: Duration::from_secs(5), batch: Duration::from_mins(1) }
    }
}

/// How much of a refused body is still read. A client that is writing its body reads the answer only afterwards, and a
/// connection that is closed before would be reset, answer and all.
const DRAIN_BYTES: usize = 1024 * 1024;

/// The most bytes of a batch: its votes at their largest, and far more white space between them than anyone needs.
const MAX_BATCH_BYTES: usize = MAX_BATCH_VOTES * (MAX_VOTE_BYTES + 1024);

/// A request's body as it arrives.
pub(crate) struct Body {
    arriving: RequestBody,
    patience: Patience,
    deadline: Instant,
    read: usize,
}

impl Body {
    /// A body that is about to arrive.
    pub(crate) fn new(arriving: RequestBody, patience: Patience) -> Self {
        Self { arriving, patience, deadline: Instant::now() + patience.batch, read: 0 }
    }

    /// The whole body, of one vote.
    ///
    /// # Errors
    /// [`Reason::TooLarge`], [`Reason::SlowBody`], or [`Reason::MalformedBody`] if it breaks off.
    pub(crate) async fn vote(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut vote = Vec::new();
        let read = async {
            while let Some(bytes) = self.arriving.chunk().await.transpose().map_err(broken_off)? {
                if vote.len() + bytes.len() > MAX_VOTE_BYTES {
                    return Err(Refusal::new(Reason::TooLarge, format!("a vote has at most {MAX_VOTE_BYTES} bytes")));
                }
                vote.extend_from_slice(&bytes);
            }
            Ok(())
        };
        timeout(self.patience.vote, read).await.unwrap_or_else(|_| Err(slow(self.patience.vote)))?;
        Ok(vote)
    }

    /// Appends the next bytes of a batch; `false` at its end. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub(crate) async fn chunk(&mut self, batch: &mut Vec<u8>, silent_since: Instant) -> Result<bool, Refusal> {
        let deadline = self.deadline.min(silent_since + self.patience.vote);
        match timeout_at(deadline, self.arriving.chunk()).await {
            Ok(None) => Ok(false),
            Ok(Some(bytes)) => {
                let bytes = bytes.map_err(broken_off)?;
                self.read += bytes.len();
                if self.read > MAX_BATCH_BYTES {
                    return Err(Refusal::new(Reason::TooLarge, format!("a batch has at most {MAX_BATCH_BYTES} bytes")));
                }
                batch.extend_from_slice(&bytes);
                Ok(true)
            }
            Err(_) if deadline == self.deadline => Err(slow(self.patience.batch)),
            Err(_) => Err(slow(self.patience.vote)),
        }
    }

    /// Reads and forgets the rest of a refused body, within bounds, so that the client gets to read its answer.
    pub(crate) async fn drain(mut self, refusal: &Refusal) {
        if refusal.reason == Reason::SlowBody {
            return;
        }
        let mut left = DRAIN_BYTES;
        let read = async {
            while left > 0
                && let Some(Ok(bytes)) = self.arriving.chunk().await
            {
                left = left.saturating_sub(bytes.len());
            }
        };
        let _ = timeout(self.patience.vote, read).await;
    }
}

fn slow(patience: Duration) -> Refusal {
    Refusal::new(Reason::SlowBody, format!("the body did not come within {patience:?}"))
}

fn broken_off(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::MalformedBody, format!("the body broke off: {error}"))
}
