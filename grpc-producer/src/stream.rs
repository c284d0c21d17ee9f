//! `CastVotes`: reads votes from a stream, submits each to the log at once, and sends the outcomes in the order of the
//! votes.
//!
//! At most [`VotePipeline::MAX_PENDING_VOTES`] votes of a stream wait for their receipts. If this limit is reached, or
//! the queue in front of the log is full, the producer reads no further vote from the stream until it has sent an
//! outcome. Meanwhile, HTTP/2's flow control stops a client that sends faster.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::service::{
    CancellationToken,
    grpc::refusal_status,
    ingest::{Outcome, VotePipeline},
};
use bytes::Bytes;
use proto::v1::{CastVotesResponse, cast_votes_response};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};
use votes::{MAX_VOTE_BYTES, Refusal, VoteRequest, vote_too_large};

use crate::{message, status};

/// The response stream of a call: the outcomes of its votes.
pub(crate) struct Outcomes {
    /// The messages of the client. `None` when the producer will read no further message.
    messages: Option<Streaming<Bytes>>,
    pipeline: VotePipeline,
    /// A message that was read but not cast, because the queue in front of the log was full.
    unsubmitted: Option<Bytes>,
    traceparent: Option<String>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` before shutdown. After shutdown began, the producer reads only messages that have already arrived, and at
    /// most this number of them.
    remaining_reads: Option<usize>,
    /// The status that ends the call. `None` if it ends without an error.
    final_status: Option<Status>,
}

impl Outcomes {
    pub(crate) fn new(
        messages: Streaming<Bytes>,
        pipeline: VotePipeline,
        traceparent: Option<String>,
        shutdown: CancellationToken,
    ) -> Self {
        let shutdown = Box::pin(shutdown.cancelled_owned());
        Self {
            messages: Some(messages),
            pipeline,
            unsubmitted: None,
            traceparent,
            shutdown,
            remaining_reads: None,
            final_status: None,
        }
    }

    /// Casts the votes that have arrived, as far as the pipeline and the queue have room.
    fn cast_arrived(&mut self, context: &mut Context<'_>) {
        while self.pipeline.has_room() {
            let Some(message) = self.unsubmitted.take().or_else(|| self.next_message(context)) else { return };
            if self.pipeline.cast(self.parse_vote(&message)).is_err() {
                self.unsubmitted = Some(message);
                return;
            }
        }
    }

    /// Returns the next message that has arrived, if there is one. At the end of the messages, closes `messages` and
    /// sets `final_status`.
    fn next_message(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        let messages = self.messages.as_mut()?;
        if self.remaining_reads.is_none() && self.shutdown.as_mut().poll(context).is_ready() {
            self.remaining_reads = Some(VotePipeline::MAX_PENDING_VOTES);
        }
        match (Pin::new(messages).poll_next(context), &mut self.remaining_reads) {
            (Poll::Ready(Some(Ok(message))), None) => return Some(message),
            (Poll::Ready(Some(Ok(message))), Some(remaining)) if *remaining > 0 => {
                *remaining -= 1;
                return Some(message);
            }
            (Poll::Pending, None) => return None,
            (Poll::Ready(None), _) => {}
            (Poll::Ready(Some(Err(problem))), _) => {
                self.final_status = Some(refusal_status(&status::decode_refusal(&problem)));
            }
            (_, Some(_)) => self.final_status = Some(status::shutting_down_status()),
        }
        self.messages = None;
        None
    }

    fn parse_vote(&self, message: &[u8]) -> Result<VoteRequest, Refusal> {
        if message.len() > MAX_VOTE_BYTES {
            return Err(vote_too_large());
        }
        Ok(VoteRequest { traceparent: self.traceparent.clone(), ..message::parse(message)? })
    }
}

impl Stream for Outcomes {
    type Item = Result<CastVotesResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.cast_arrived(context);
        Poll::Ready(match ready!(self.pipeline.poll_next(context)) {
            Some(outcome) => Some(Ok(to_message(outcome))),
            None if self.messages.is_some() => return Poll::Pending,
            None => self.final_status.take().map(Err),
        })
    }
}

fn to_message(outcome: Outcome) -> CastVotesResponse {
    let outcome = match outcome {
        Ok(accepted) => cast_votes_response::Outcome::Receipt(status::receipt(&accepted)),
        Err(refusal) => cast_votes_response::Outcome::Error(status::vote_error(refusal)),
    };
    CastVotesResponse { outcome: Some(outcome) }
}
