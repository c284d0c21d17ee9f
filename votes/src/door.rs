//! The door: the way from a request to a receipt, shared by every protocol.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use crate::{
    ContestId, Contests, DoorKind, PendingReceipt, PublishError, Reason, Receipt, Refusal, UnixMillis, Vote, VoteId,
    VoteQueue, VoteRequest, VoterSecret,
};

/// Takes votes for the log.
#[derive(Clone)]
pub struct Door {
    kind: DoorKind,
    contests: Arc<Contests>,
    secret: Option<VoterSecret>,
    queue: Arc<dyn VoteQueue>,
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

impl Door {
    /// Opens a door.
    pub fn new(
        kind: DoorKind,
        contests: Arc<Contests>,
        secret: Option<VoterSecret>,
        queue: Arc<dyn VoteQueue>,
    ) -> Self {
        Self { kind, contests, secret, queue }
    }

    /// Casts one vote. When this returns `Ok`, the log has the vote for good.
    ///
    /// # Errors
    /// A [`Refusal`]; with its `vote_id` the vote may safely be cast again.
    pub async fn cast(&self, request: VoteRequest) -> Result<Accepted, Refusal> {
        self.submit(request)?.await
    }

    /// The first half of [`cast`](Self::cast), for pipelines: hands the vote to the log without waiting for the receipt.
    ///
    /// # Errors
    /// As `cast`. [`Reason::QueueFull`] comes from here only.
    pub fn submit(&self, request: VoteRequest) -> Result<Casting, Refusal> {
        self.publish(self.admit(request)?)
    }

    /// The first half of [`submit`](Self::submit), for whoever wants to know of the vote before it is handed over: asks
    /// the rules.
    ///
    /// # Errors
    /// As [`Vote::admit`].
    pub fn admit(&self, request: VoteRequest) -> Result<Vote, Refusal> {
        Vote::admit(request, &self.contests, self.secret.as_ref(), self.kind, UnixMillis::now())
    }

    /// The other half of `submit`: hands a vote that was admitted to the log.
    ///
    /// # Errors
    /// [`Reason::QueueFull`] and [`Reason::LogUnavailable`].
    pub fn publish(&self, vote: Vote) -> Result<Casting, Refusal> {
        let (vote_id, contest) = (vote.vote_id, vote.contest.clone());
        let partition = vote.key.partition(self.queue.partitions());
        match self.queue.publish(partition, vote) {
            Ok(receipt) => Ok(Casting { vote_id, contest, receipt }),
            Err(error) => Err(unpublished(vote_id, error)),
        }
    }

    /// Which door this is.
    pub fn kind(&self) -> DoorKind {
        self.kind
    }
}

/// A vote between the door and the log.
#[derive(Debug)]
#[must_use = "a vote is not accepted before its receipt"]
pub struct Casting {
    vote_id: VoteId,
    contest: ContestId,
    receipt: PendingReceipt,
}

impl Future for Casting {
    type Output = Result<Accepted, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.receipt).poll(context));
        let vote_id = self.vote_id;
        Poll::Ready(match outcome {
            Ok(receipt) => Ok(Accepted { vote_id, contest: self.contest.clone(), receipt }),
            Err(error) => Err(unpublished(vote_id, error)),
        })
    }
}

fn unpublished(vote_id: VoteId, error: PublishError) -> Refusal {
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
