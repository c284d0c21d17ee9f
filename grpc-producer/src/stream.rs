//! `CastVotes`: each vote is handed to the log when it is read, and answered when the log has it, in order.
//!
//! At most [`Line::LONGEST`] votes of a stream wait for receipts. Then, and when the queue before the log is full, nothing is
//! read until an answer was sent, so a client that is too fast is slowed down by HTTP/2's flow control.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::service::{
    CancellationToken,
    door::{Line, Outcome},
};
use bytes::Bytes;
use proto::v1::{CastVotesResponse, cast_votes_response};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};
use votes::{MAX_VOTE_BYTES, Refusal, VoteRequest};

use crate::{message, service, status};

/// The outcomes of a stream's votes.
pub(crate) struct Outcomes {
    /// Until the last one was read.
    messages: Option<Streaming<Bytes>>,
    line: Line,
    /// A vote that waits for room in the queue before the log.
    waiting: Option<Bytes>,
    traceparent: Option<String>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Once the process is leaving: how many votes of those that have arrived are still taken.
    last: Option<usize>,
    /// Why the stream ends, if it is not the client who ends it.
    end: Option<Status>,
}

impl Outcomes {
    pub(crate) fn new(
        messages: Streaming<Bytes>,
        line: Line,
        traceparent: Option<String>,
        shutdown: CancellationToken,
    ) -> Self {
        let shutdown = Box::pin(shutdown.cancelled_owned());
        Self { messages: Some(messages), line, waiting: None, traceparent, shutdown, last: None, end: None }
    }

    /// Casts the votes that have arrived.
    fn read(&mut self, context: &mut Context<'_>) {
        while self.line.has_room() {
            let Some(message) = self.waiting.take().or_else(|| self.message(context)) else { return };
            if self.line.cast(self.vote(&message)).is_err() {
                self.waiting = Some(message);
                return;
            }
        }
    }

    fn message(&mut self, context: &mut Context<'_>) -> Option<Bytes> {
        let messages = self.messages.as_mut()?;
        if self.last.is_none() && self.shutdown.as_mut().poll(context).is_ready() {
            self.last = Some(Line::LONGEST);
        }
        match (Pin::new(messages).poll_next(context), &mut self.last) {
            (Poll::Ready(Some(Ok(message))), None) => return Some(message),
            (Poll::Ready(Some(Ok(message))), Some(last)) if *last > 0 => {
                *last -= 1;
                return Some(message);
            }
            (Poll::Pending, None) => return None,
            (Poll::Ready(None), _) => {}
            (Poll::Ready(Some(Err(problem))), _) => self.end = Some(status::status(&status::unread(&problem))),
            (_, Some(_)) => self.end = Some(status::leaving()),
        }
        self.messages = None;
        None
    }

    fn vote(&self, message: &[u8]) -> Result<VoteRequest, Refusal> {
        if message.len() > MAX_VOTE_BYTES {
            return Err(service::too_large());
        }
        Ok(VoteRequest { traceparent: self.traceparent.clone(), ..message::read(message)? })
    }
}

impl Stream for Outcomes {
    type Item = Result<CastVotesResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.read(context);
        Poll::Ready(match ready!(self.line.poll_next(context)) {
            Some(outcome) => Some(Ok(response(outcome))),
            None if self.messages.is_some() => return Poll::Pending,
            None => self.end.take().map(Err),
        })
    }
}

fn response(outcome: Outcome) -> CastVotesResponse {
    let outcome = match outcome {
        Ok(accepted) => cast_votes_response::Outcome::Receipt(status::receipt(&accepted)),
        Err(refusal) => cast_votes_response::Outcome::Error(status::error(refusal)),
    };
    CastVotesResponse { outcome: Some(outcome) }
}
