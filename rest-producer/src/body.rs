//! Reads bodies, with bounds on their size and on the time they take.

use std::time::Duration;

use rocket::data::{Data, DataStream, ToByteUnit};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout, timeout_at},
};
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

/// The most bytes of a batch: far more than white space between votes of the largest size needs.
const MAX_BATCH_BYTES: usize = (MAX_BATCH_VOTES + 1) * (MAX_VOTE_BYTES + 1024);

/// A request's body as it arrives.
pub(crate) struct Body<'r> {
    stream: DataStream<'r>,
    patience: Patience,
    deadline: Instant,
}

impl<'r> Body<'r> {
    /// A body that is about to arrive.
    pub(crate) fn new(data: Data<'r>, patience: Patience) -> Self {
        Self { stream: data.open(MAX_BATCH_BYTES.bytes()), patience, deadline: Instant::now() + patience.batch }
    }

    /// The whole body, of one vote.
    ///
    /// # Errors
    /// [`Reason::TooLarge`], [`Reason::SlowBody`], or [`Reason::MalformedBody`] if it breaks off.
    pub(crate) async fn vote(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::with_capacity(512);
        let read = async {
            while bytes.len() <= MAX_VOTE_BYTES {
                if self.stream.read_buf(&mut bytes).await.map_err(broken_off)? == 0 {
                    return Ok(());
                }
            }
            Err(Refusal::new(Reason::TooLarge, format!("a vote has at most {MAX_VOTE_BYTES} bytes")))
        };
        timeout(self.patience.vote, read).await.unwrap_or_else(|_| Err(slow(self.patience.vote)))?;
        Ok(bytes)
    }

    /// Appends the next bytes of a batch; `false` at its end.
    ///
    /// # Errors
    /// As [`vote`](Self::vote).
    pub(crate) async fn chunk(&mut self, bytes: &mut Vec<u8>, silent_since: Instant) -> Result<bool, Refusal> {
        let deadline = self.deadline.min(silent_since + self.patience.vote);
        // One read takes what has arrived, so chunks are as large as the client and the network make them.
        bytes.reserve(CHUNK_BYTES);
        match timeout_at(deadline, self.stream.read_buf(bytes)).await {
            Ok(read) => Ok(read.map_err(broken_off)? > 0),
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
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        let read = async {
            while left > 0 {
                bytes.clear();
                match self.stream.read_buf(&mut bytes).await {
                    Ok(count) if count > 0 => left = left.saturating_sub(count),
                    _ => return,
                }
            }
        };
        let _ = timeout(self.patience.vote, read).await;
    }
}

const CHUNK_BYTES: usize = 16 * 1024;

fn slow(patience: Duration) -> Refusal {
    Refusal::new(Reason::SlowBody, format!("the body did not come within {patience:?}"))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn broken_off(error: std::io::Error) -> Refusal {
    Refusal::new(Reason::MalformedBody, format!("the body broke off: {error}"))
}
