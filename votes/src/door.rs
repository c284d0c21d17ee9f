//! The door: the way from a request to a receipt, shared by every protocol.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_channel::oneshot;

use crate::{
    ContestId, Contests, DoorKind, PendingReceipt, PublishError, Reason, Receipt, Refusal, UnixMillis, Vote, VoteId,
    VoteQueue, VoteRequest, VoterHash, VoterSecret,
};

/// Takes votes for the log, or passes them on to the door that does.
#[derive(Clone)]
pub struct Door {
    kind: DoorKind,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Log { contests: Arc<Contests>, secret: Option<VoterSecret>, queue: Arc<dyn VoteQueue> },
    Forward(Arc<dyn Forward>),
}

/// Passes requests on to another door. That door admits the votes, by its own rules and clock, and puts them on the log.
pub trait Forward: Send + Sync {
    /// Hands a request over without waiting for its answer.
    ///
    /// # Errors
    /// [`Reason::QueueFull`] while too many are waiting for the other door, and what can be told from the request alone.
    fn submit(&self, request: VoteRequest) -> Result<Casting, Refusal>;
}

/// A vote that the log has for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The client's id, or the one made for the vote.
    pub vote_id: VoteId,
    /// The contest.
    pub contest: ContestId,
    /// Where the log has it, and since when.
    pub receipt: Receipt,
}

/// A request that was handed over.
#[derive(Debug)]
pub struct Submitted {
    /// Who votes, if this door knows and the rules of the contest let the vote in.
    pub voter: Option<VoterHash>,
    /// The vote on its way, or why it was refused at once. [`Reason::QueueFull`] comes from here only.
    pub casting: Result<Casting, Refusal>,
}

impl Door {
    /// Opens a door to the log.
    pub fn new(
        kind: DoorKind,
        contests: Arc<Contests>,
        secret: Option<VoterSecret>,
        queue: Arc<dyn VoteQueue>,
    ) -> Self {
        Self { kind, way: Way::Log { contests, secret, queue } }
    }

    /// Opens a door that passes everything on to one of this kind.
    pub fn forwarding(kind: DoorKind, to: Arc<dyn Forward>) -> Self {
        Self { kind, way: Way::Forward(to) }
    }

    /// Casts one vote. When this returns `Ok`, the log has the vote for good.
    ///
    /// # Errors
    /// A [`Refusal`]; with its `vote_id` the vote may safely be cast again.
    pub async fn cast(&self, request: VoteRequest) -> Result<Accepted, Refusal> {
        self.submit(request).casting?.await
    }

    /// The first half of [`cast`](Self::cast), for pipelines: hands the vote over without waiting for the receipt.
    pub fn submit(&self, request: VoteRequest) -> Submitted {
        match &self.way {
            Way::Forward(to) => Submitted { voter: None, casting: to.submit(request) },
            Way::Log { contests, secret, queue } => {
                match Vote::admit(request, contests, secret.as_ref(), self.kind, UnixMillis::now()) {
                    Ok(vote) => Submitted { voter: vote.voter, casting: publish(queue.as_ref(), vote) },
                    Err(refusal) => Submitted { voter: None, casting: Err(refusal) },
                }
            }
        }
    }

    /// Which door it is that puts the votes on the log.
    pub fn kind(&self) -> DoorKind {
        self.kind
    }

    /// Whether it is another door than this one that puts them there.
    pub fn is_forwarding(&self) -> bool {
        matches!(self.way, Way::Forward(_))
    }
}

fn publish(queue: &dyn VoteQueue, vote: Vote) -> Result<Casting, Refusal> {
    let (vote_id, contest) = (vote.vote_id, vote.contest.clone());
    let partition = vote.key.partition(queue.partitions());
    match queue.publish(partition, vote) {
        Ok(receipt) => Ok(Casting { vote_id, waits_for: WaitsFor::Log { contest, receipt } }),
        Err(error) => Err(unpublished(vote_id, error)),
    }
}

/// A vote between the door and the log.
#[derive(Debug)]
#[must_use = "a vote is not accepted before its receipt"]
pub struct Casting {
    vote_id: VoteId,
    waits_for: WaitsFor,
}

#[derive(Debug)]
enum WaitsFor {
    Log { contest: ContestId, receipt: PendingReceipt },
    OtherDoor(oneshot::Receiver<Result<Accepted, Refusal>>),
}

/// Where the other door's answer to a vote that was passed on goes. If it is dropped, the vote counts as unanswered.
pub type AnswerSender = oneshot::Sender<Result<Accepted, Refusal>>;

impl Casting {
    /// A vote between this door and the other one.
    pub fn forwarded(vote_id: VoteId) -> (AnswerSender, Self) {
        let (sender, answer) = oneshot::channel();
        (sender, Self { vote_id, waits_for: WaitsFor::OtherDoor(answer) })
    }
}

impl Future for Casting {
    type Output = Result<Accepted, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let vote_id = self.vote_id;
        Poll::Ready(match &mut self.waits_for {
            WaitsFor::Log { contest, receipt } => match ready!(Pin::new(receipt).poll(context)) {
                Ok(receipt) => Ok(Accepted { vote_id, contest: contest.clone(), receipt }),
                Err(error) => Err(unpublished(vote_id, error)),
            },
            WaitsFor::OtherDoor(answer) => ready!(Pin::new(answer).poll(context)).unwrap_or_else(|_| {
                Err(unpublished(vote_id, PublishError::Unavailable("the door went before it answered".to_owned())))
            }),
        })
    }
}

/// Why the log has no vote of this id, as far as is known here.
pub fn unpublished(vote_id: VoteId, error: PublishError) -> Refusal {
    let (reason, detail) = match error {
        PublishError::Full => (
            Reason::QueueFull,
            "too many votes are waiting for the vote log; cast this one again in a second".to_owned(),
        ),
        PublishError::Unavailable(problem) => {
            (Reason::LogUnavailable, format!("{problem}; casting the vote again with the same vote_id is safe"))
        }
    };
    Refusal { vote_id: Some(vote_id), ..Refusal::new(reason, detail) }
}
