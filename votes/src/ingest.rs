//! What all producers share: they validate a vote, publish it, and wait for the receipt.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_channel::oneshot;

use crate::{
    contest::Contests,
    ids::{ContestId, UnixMillis, VoteId, VoterHash, VoterSecret},
    ports::{DeliveryFuture, LogWriter, PublishError, Receipt},
    refusal::{Reason, Refusal},
    request::VoteRequest,
    vote::{ProducerKind, Vote},
};

/// Publishes votes on the log, or forwards them to another producer, which publishes them.
#[derive(Clone)]
pub struct Ingest {
    kind: ProducerKind,
    route: Route,
}

#[derive(Clone)]
enum Route {
    Log { contests: Arc<Contests>, secret: Option<VoterSecret>, log_writer: Arc<dyn LogWriter> },
    Forward(Arc<dyn Forward>),
}

/// Forwards requests to another producer. That producer validates the votes, with its own rules and clock, and
/// publishes them.
pub trait Forward: Send + Sync {
    /// Submits a request without waiting for the receipt.
    ///
    /// # Errors
    /// [`Reason::QueueFull`] while too many requests are waiting for the other producer, and every reason that follows
    /// from the request alone.
    fn submit(&self, request: VoteRequest) -> Result<PendingReceipt, Refusal>;
}

/// The answer for a vote that is durably on the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The vote's id, from the client or from the producer.
    pub vote_id: VoteId,
    /// The contest.
    pub contest: ContestId,
    /// The vote's position and time on the log.
    pub receipt: Receipt,
}

/// A submitted request.
#[derive(Debug)]
pub struct Submission {
    /// The hash of the voter. `None` if the vote has no voter, is invalid, or was forwarded without validation.
    pub voter: Option<VoterHash>,
    /// The pending receipt, or an immediate refusal. [`Reason::QueueFull`] is always an immediate refusal.
    pub pending: Result<PendingReceipt, Refusal>,
}

impl Ingest {
    /// Creates an ingest that publishes votes on the log.
    pub fn new(
        kind: ProducerKind,
        contests: Arc<Contests>,
        secret: Option<VoterSecret>,
        log_writer: Arc<dyn LogWriter>,
    ) -> Self {
        Self { kind, route: Route::Log { contests, secret, log_writer } }
    }

    /// Creates an ingest that forwards each vote to a producer of this kind.
    pub fn forwarding(kind: ProducerKind, forwarder: Arc<dyn Forward>) -> Self {
        Self { kind, route: Route::Forward(forwarder) }
    }

    /// Casts one vote, and waits for its receipt. After `Ok`, the vote is durable on the log.
    ///
    /// # Errors
    /// A [`Refusal`]. It is safe to cast the vote again with the `vote_id` of the refusal.
    pub async fn cast(&self, request: VoteRequest) -> Result<Accepted, Refusal> {
        self.submit(request).pending?.await
    }

    /// Submits a vote without waiting for the receipt. A pipeline submits many votes before it waits.
    pub fn submit(&self, request: VoteRequest) -> Submission {
        match &self.route {
            Route::Forward(forwarder) => Submission { voter: None, pending: forwarder.submit(request) },
            Route::Log { contests, secret, log_writer } => {
                let has_vote_id = request.has_vote_id();
                match Vote::admit(request, contests, secret.as_ref(), self.kind, UnixMillis::now()) {
                    Ok(mut vote) => {
                        if !has_vote_id && let Some(partition) = log_writer.preferred_partition() {
                            vote.draw_id(partition, log_writer.partitions());
                        }
                        Submission { voter: vote.voter, pending: publish(log_writer.as_ref(), vote) }
                    }
                    Err(refusal) => Submission { voter: None, pending: Err(refusal) },
                }
            }
        }
    }

    /// Returns the kind of the producer that publishes the votes on the log.
    pub fn kind(&self) -> ProducerKind {
        self.kind
    }

    /// Returns whether another producer publishes the votes on the log.
    pub fn is_forwarding(&self) -> bool {
        matches!(self.route, Route::Forward(_))
    }
}

fn publish(log_writer: &dyn LogWriter, vote: Vote) -> Result<PendingReceipt, Refusal> {
    let (vote_id, contest) = (vote.vote_id, vote.contest.clone());
    let partition = vote.key.partition(log_writer.partitions());
    match log_writer.publish(partition, vote) {
        Ok(delivery) => Ok(PendingReceipt { vote_id, source: ReceiptSource::Log { contest, delivery } }),
        Err(error) => Err(publish_refusal(vote_id, error)),
    }
}

/// A future of the receipt of a submitted vote.
#[derive(Debug)]
#[must_use = "a vote is not accepted before its receipt"]
pub struct PendingReceipt {
    vote_id: VoteId,
    source: ReceiptSource,
}

/// Where a receipt comes from.
#[derive(Debug)]
enum ReceiptSource {
    Log { contest: ContestId, delivery: DeliveryFuture },
    OtherProducer(oneshot::Receiver<Result<Accepted, Refusal>>),
}

/// The sending end of the receipt of a forwarded vote. If it is dropped, the vote is refused with
/// [`Reason::LogUnavailable`].
pub type ReceiptSender = oneshot::Sender<Result<Accepted, Refusal>>;

impl PendingReceipt {
    /// Creates the pending receipt of a forwarded vote, with its sender.
    pub fn forwarded(vote_id: VoteId) -> (ReceiptSender, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self { vote_id, source: ReceiptSource::OtherProducer(receiver) })
    }
}

impl Future for PendingReceipt {
    type Output = Result<Accepted, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let vote_id = self.vote_id;
        Poll::Ready(match &mut self.source {
            ReceiptSource::Log { contest, delivery } => match ready!(Pin::new(delivery).poll(context)) {
                Ok(receipt) => Ok(Accepted { vote_id, contest: contest.clone(), receipt }),
                Err(error) => Err(publish_refusal(vote_id, error)),
            },
            ReceiptSource::OtherProducer(receiver) => ready!(Pin::new(receiver).poll(context)).unwrap_or_else(|_| {
                let problem = "the producer stopped before it responded".to_owned();
                Err(publish_refusal(vote_id, PublishError::Unavailable(problem)))
            }),
        })
    }
}

/// Returns the refusal of a vote that the log did not confirm.
pub fn publish_refusal(vote_id: VoteId, error: PublishError) -> Refusal {
    let (reason, detail) = match error {
        PublishError::Full => (
            Reason::QueueFull,
            "too many votes are waiting for the vote log; cast the vote again in a second".to_owned(),
        ),
        PublishError::Unavailable(problem) => {
            (Reason::LogUnavailable, format!("{problem}; casting the vote again with the same vote_id is safe"))
        }
    };
    Refusal { vote_id: Some(vote_id), ..Refusal::new(reason, detail) }
}
