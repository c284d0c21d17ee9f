//! Forwards votes to the gRPC producer. With it, a client can use REST although only gRPC producers write to the log.
//!
//! The forwarder has several `CastVotes` streams, each on a connection of its own. All streams take votes from one
//! queue. On each stream, the outcomes arrive in the order of the votes. If a stream fails, its votes without an
//! outcome return to the head of the queue, and the next free stream sends them again with the same `vote_id`. Such a
//! vote counts once, even if it was already on the log. A vote whose deadline has passed is refused instead. So if a
//! gRPC producer is replaced within the deadline, clients do not notice it.
//!
//! A traced vote is different: it is sent on a stream of its own, because the trace is in the metadata of the stream.
//! If this stream fails, the vote is not sent again. It is refused at once, and the client can cast it again.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::{Closed, VoteStream, endpoint, error::root_cause};
use proto::v1::{CastVoteRequest, CastVoteResponse, CastVotesResponse, VoteError, cast_votes_response};
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use service::{Health, config::GrpcEndpoint, health::Criticality};
use tokio::{
    select,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::StreamExt;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};
use votes::{
    Accepted, Forward, HealthDetails, LogPosition, Offset, Partition, PendingReceipt, PublishError, Reason, Receipt,
    ReceiptSender, Refusal, UnixMillis, VoteId, VoteRequest, publish_refusal,
};

/// The number of streams. A Kubernetes Service distributes connections, not calls. So several connections are needed if
/// several pods are to receive votes.
const STREAMS: usize = 4;

/// How long a stream and its connection are used. A new connection may be to a pod that was added meanwhile.
const STREAM_LIFETIME: Duration = Duration::from_mins(1);

/// The maximum number of votes without an outcome on one stream. The gRPC producer has the same limit.
const MAX_STREAM_VOTES: usize = 2_000;

/// The longest time from sending a vote on a stream to its outcome. After that, the stream counts as failed. The gRPC
/// producer sends each outcome within two seconds, also if the log does not respond.
const RECEIPT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// The time after which a vote without an outcome is refused instead of sent again. For votes without a trace, this is
/// checked only when a stream fails. So such a vote may wait longer, for example for its outcome on the last stream.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause after a stream failed, before the next stream is opened. The gRPC producer may be starting.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Forwards votes to the gRPC producer over several streams.
pub struct Forwarder {
    endpoint: Endpoint,
    url: String,
    /// Has one permit for each vote that may still be added to the queue. A vote holds its permit until its outcome.
    permits: Arc<Semaphore>,
    queue: Mutex<VecDeque<QueuedVote>>,
    /// Notified when the queue has a vote for a stream.
    added: Notify,
    open_streams: AtomicUsize,
    /// The reason for the most recent failure of a stream.
    last_error: Mutex<String>,
}

/// A vote that has no outcome yet. It is in the queue or on a stream.
struct QueuedVote {
    message: CastVoteRequest,
    traceparent: Option<String>,
    vote_id: VoteId,
    deadline: Instant,
    sender: ReceiptSender,
    _permit: OwnedSemaphorePermit,
}

impl Forwarder {
    /// Starts a task for each stream, which opens the stream again whenever it ends. Adds a health check that fails
    /// while no stream is open. At most `max_votes` votes can wait for their outcome.
    ///
    /// # Errors
    /// If the URL is invalid for tonic.
    ///
    /// # Panics
    /// If this is called outside of a Tokio runtime.
    pub fn start(to: &GrpcEndpoint, max_votes: usize, health: &Health) -> Result<Arc<Self>, tonic::transport::Error> {
        let endpoint = endpoint(Endpoint::from_shared(to.as_str().to_owned())?)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // These detect a gRPC producer that disappeared without closing the connection.
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        let forwarder = Arc::new(Self {
            endpoint,
            url: to.as_str().to_owned(),
            permits: Arc::new(Semaphore::new(max_votes)),
            queue: Mutex::default(),
            added: Notify::new(),
            open_streams: AtomicUsize::new(0),
            last_error: Mutex::new("not connected yet".to_owned()),
        });
        for number in 0..STREAMS {
            tokio::spawn(Arc::clone(&forwarder).run_streams(number));
        }
        // Weak, so that the health check does not keep the forwarder alive.
        let weak = Arc::downgrade(&forwarder);
        health.add_check("grpc producer", Criticality::Required, move || {
            let result = weak.upgrade().ok_or_else(|| "closed".to_owned()).and_then(|forwarder| forwarder.health());
            async move { result }
        });
        Ok(forwarder)
    }

    fn health(&self) -> Result<HealthDetails, String> {
        if self.open_streams.load(Ordering::Relaxed) > 0 {
            return Ok(HealthDetails::default());
        }
        Err(self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<QueuedVote>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the oldest vote from the queue, and returns it. Waits while the queue is empty.
    async fn take_next(&self) -> QueuedVote {
        loop {
            let added = self.added.notified();
            let (vote, has_more) = {
                let mut queue = self.queue();
                (queue.pop_front(), !queue.is_empty())
            };
            match vote {
                // `Notify` stores only one notification, even if several votes were added. So the stream that takes a
                // vote wakes another stream for the next vote.
                Some(vote) => {
                    if has_more {
                        self.added.notify_one();
                    }
                    return vote;
                }
                None => added.await,
            }
        }
    }

    /// Returns the votes without an outcome to the head of the queue, oldest first. Then refuses every vote in the
    /// queue whose deadline has passed, with `problem` as the reason.
    fn requeue(&self, unanswered: Vec<QueuedVote>, problem: &str) {
        let now = Instant::now();
        let mut queue = self.queue();
        for vote in unanswered.into_iter().rev() {
            queue.push_front(vote);
        }
        let (expired, remaining): (VecDeque<_>, VecDeque<_>) = queue.drain(..).partition(|vote| vote.deadline <= now);
        *queue = remaining;
        drop(queue);
        for vote in expired {
            vote.refuse(problem);
        }
        self.added.notify_one();
    }

    /// Runs one stream after another, until the process ends.
    async fn run_streams(self: Arc<Self>, number: usize) {
        // The first stream of each task has another lifetime, so that the streams are not all replaced at the same
        // time.
        let numerator = u32::try_from(number + 1).unwrap_or(1);
        let mut lifetime = STREAM_LIFETIME * numerator / u32::try_from(STREAMS).unwrap_or(1);
        loop {
            let mut unanswered = Vec::new();
            let ended = self.run_stream(lifetime, &mut unanswered).await;
            lifetime = STREAM_LIFETIME;
            let Err(problem) = ended else { continue };
            let problem = format!("the gRPC producer at {} is unavailable: {problem}", self.url);
            tracing::debug!(stream = number, problem, "a stream failed");
            self.requeue(unanswered, &problem);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = problem;
            sleep(RETRY_DELAY).await;
        }
    }

    /// Runs one stream: sends votes until the end of its lifetime, then waits until every vote has its outcome.
    ///
    /// # Errors
    /// The reason if the stream failed. Then the votes without an outcome have been added to `unanswered`.
    async fn run_stream(&self, lifetime: Duration, unanswered: &mut Vec<QueuedVote>) -> Result<(), String> {
        let channel = self.endpoint.connect().await.map_err(|error| root_cause(&error))?;
        let client = VoteServiceClient::new(channel);
        let opened = VoteStream::open(&client, MAX_STREAM_VOTES, RECEIPT_TIMEOUT).await;
        let mut stream = opened.map_err(|status| call_error(&status))?;
        let _open = OpenStreamGuard::new(&self.open_streams);
        let ended = self.cast_votes(&client, &mut stream, lifetime).await;
        unanswered.extend(stream.into_unanswered());
        ended
    }

    async fn cast_votes(
        &self,
        client: &VoteServiceClient<Channel>,
        stream: &mut VoteStream<QueuedVote>,
        lifetime: Duration,
    ) -> Result<(), String> {
        let lifetime_end = sleep(lifetime);
        tokio::pin!(lifetime_end);
        while !stream.is_finished() {
            let (has_room, is_finishing, overdue) = (stream.has_room(), stream.is_finishing(), stream.overdue_at());
            select! {
                biased;
                answered = stream.next() => {
                    let (vote, outcome) = answered.map_err(|closed| close_reason(&closed))?;
                    vote.complete(outcome);
                }
                vote = self.take_next(), if has_room => {
                    if vote.traceparent.is_some() {
                        tokio::spawn(cast_traced(client.clone(), vote));
                    } else {
                        stream.send(vote.message.clone(), vote, Instant::now());
                    }
                }
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    return Err(format!("it did not answer within {RECEIPT_TIMEOUT:?}"));
                }
                () = &mut lifetime_end, if !is_finishing => stream.finish(),
            }
        }
        Ok(())
    }
}

impl Forward for Forwarder {
    fn submit(&self, request: VoteRequest) -> Result<PendingReceipt, Refusal> {
        let vote_id = request.resolve_vote_id()?;
        let (sender, pending) = PendingReceipt::forwarded(vote_id);
        let traceparent = request.traceparent.clone();
        let message = to_message(request, vote_id);
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| publish_refusal(vote_id, PublishError::Full))?;
        let deadline = Instant::now() + FORWARD_TIMEOUT;
        self.queue().push_back(QueuedVote { message, traceparent, vote_id, deadline, sender, _permit: permit });
        self.added.notify_one();
        Ok(pending)
    }
}

impl QueuedVote {
    /// Sends the outcome to the request that waits for it. If the request has already ended, the outcome is dropped.
    fn complete(self, outcome: CastVotesResponse) {
        let _ = self.sender.send(to_outcome(outcome, self.vote_id));
    }

    /// Refuses the vote with [`Reason::LogUnavailable`].
    fn refuse(self, problem: &str) {
        let error = PublishError::Unavailable(problem.to_owned());
        let _ = self.sender.send(Err(publish_refusal(self.vote_id, error)));
    }
}

/// Casts a traced vote on a stream of its own. If the stream fails, the vote is refused.
async fn cast_traced(mut client: VoteServiceClient<Channel>, vote: QueuedVote) {
    let mut request = Request::new(tokio_stream::once(vote.message.clone()));
    if let Some(value) = vote.traceparent.as_deref().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    let outcome = async {
        let mut outcomes = client.cast_votes(request).await?.into_inner();
        outcomes.next().await.unwrap_or_else(|| Err(Status::unavailable("it ended the stream")))
    };
    match tokio::time::timeout_at(vote.deadline, outcome).await {
        Ok(Ok(outcome)) => vote.complete(outcome),
        Ok(Err(status)) => vote.refuse(&format!("the gRPC producer is unavailable: {}", call_error(&status))),
        Err(_) => vote.refuse(&format!("the gRPC producer did not answer within {FORWARD_TIMEOUT:?}")),
    }
}

/// Converts a request to a message. The request is not validated here: the gRPC producer does that.
fn to_message(request: VoteRequest, vote_id: VoteId) -> CastVoteRequest {
    let VoteRequest { name, album, year, rank, contest, voter, vote_id: _, idempotency_key: _, traceparent: _ } =
        request;
    // A year that does not fit into the message is replaced by another invalid year.
    let year = year.map(|year| i32::try_from(year).unwrap_or(i32::MAX));
    let vote_id = Some(vote_id.to_string());
    CastVoteRequest { name: name.unwrap_or_default(), album, year, rank, contest, voter, vote_id }
}

/// Converts the outcome that the gRPC producer sent for the vote with this id. An outcome that is not valid becomes a
/// refusal.
fn to_outcome(outcome: CastVotesResponse, vote_id: VoteId) -> Result<Accepted, Refusal> {
    match outcome.outcome {
        Some(cast_votes_response::Outcome::Receipt(receipt)) => to_accepted(&receipt, vote_id).ok_or_else(|| {
            publish_refusal(vote_id, PublishError::Unavailable(format!("the receipt is for another vote: {receipt:?}")))
        }),
        Some(cast_votes_response::Outcome::Error(error)) => Err(to_refusal(error, vote_id)),
        None => Err(publish_refusal(
            vote_id,
            PublishError::Unavailable("the outcome has no receipt and no error".to_owned()),
        )),
    }
}

/// Converts a receipt. Returns `None` if the receipt is invalid or is for another vote.
fn to_accepted(receipt: &CastVoteResponse, vote_id: VoteId) -> Option<Accepted> {
    let position =
        LogPosition { partition: Partition(receipt.partition.try_into().ok()?), offset: Offset(receipt.offset) };
    let receipt_of = receipt.vote_id.parse().ok().map(VoteId);
    (receipt_of == Some(vote_id)).then_some(Accepted {
        vote_id,
        contest: receipt.contest.parse().ok()?,
        receipt: Receipt { position, accepted_at: UnixMillis(receipt.accepted_at_ms) },
    })
}

/// Converts the error of a vote. If this version does not have its reason, the refusal has another reason with the same
/// gRPC code.
fn to_refusal(error: VoteError, vote_id: VoteId) -> Refusal {
    let reason_of_code = || Reason::ALL.into_iter().find(|reason| reason.grpc_code() == error.code);
    Refusal {
        reason: Reason::from_slug(&error.reason).or_else(reason_of_code).unwrap_or(Reason::LogUnavailable),
        field: Some(error.field).filter(|field| !field.is_empty()).map(Into::into),
        detail: error.message,
        vote_id: Some(vote_id),
    }
}

/// Counts a stream as open until this is dropped.
struct OpenStreamGuard<'a>(&'a AtomicUsize);

impl<'a> OpenStreamGuard<'a> {
    fn new(open_streams: &'a AtomicUsize) -> Self {
        open_streams.fetch_add(1, Ordering::Relaxed);
        Self(open_streams)
    }
}

impl Drop for OpenStreamGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns why a stream closed.
fn close_reason(closed: &Closed) -> String {
    match closed {
        Closed::Status(status) => call_error(status),
        Closed::Ended => "it ended the stream".to_owned(),
        Closed::UnexpectedOutcome => "it sent more outcomes than it received votes".to_owned(),
    }
}

/// Returns why a call failed: the cause of a broken connection, or the message of the server.
fn call_error(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), root_cause)
}
