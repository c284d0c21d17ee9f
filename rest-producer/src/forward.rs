//! Passing votes on to the gRPC producer, so that the same HTTP request goes to the log through either door.
//!
//! Each lane is one `CastVotes` stream on a connection of its own. Lanes take votes from one queue, and outcomes come in the
//! order of the votes. A vote whose stream ended before it was answered goes first on the next one, by the same `vote_id`:
//! whether or not the log has it already, it counts once. So clients notice nothing of a gRPC producer that is replaced.
//!
//! What is traced goes on a stream of its own, since a trace is told by the stream's metadata.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::v1::{
    CastVoteRequest, CastVoteResponse, CastVotesResponse, VoteError, cast_votes_response,
    vote_service_client::VoteServiceClient,
};
use service::{Health, config::GrpcEndpoint, health::Weight};
use tokio::{
    select,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};
use votes::{
    Accepted, AnswerSender, Casting, Facts, Forward, Offset, Partition, Place, PublishError, Reason, Receipt, Refusal,
    UnixMillis, VoteId, VoteRequest, unpublished,
};

/// Streams at a time. A Service balances connections, not calls: with several, more than one of its pods has work.
const LANES: usize = 4;

/// How long a lane keeps its connection, so that pods that were added get their share.
const LANE_LIFE: Duration = Duration::from_mins(1);

/// Votes of one lane between being sent and being answered; the gRPC door takes no more of a stream.
const LANE_VOTES: usize = 2_000;

/// How long a stream may take to answer a vote: the gRPC door answers within two seconds, whatever the log does.
const ANSWER_PATIENCE: Duration = Duration::from_millis(2_500);

/// How long a vote waits for its answer, over all streams that it is sent on.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a lane waits after a failure: the gRPC producer may be starting.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The way to the gRPC producer, shared by its lanes.
pub struct Forwarder {
    client: Endpoint,
    url: String,
    /// Votes without an answer, in the queue and on their way: as many more as there are permits.
    room: Arc<Semaphore>,
    waiting: Mutex<VecDeque<Waiting>>,
    came: Notify,
    open_lanes: AtomicUsize,
    /// Why the last lane ended or could not begin.
    problem: Mutex<String>,
}

/// A vote that has no answer yet.
struct Waiting {
    message: CastVoteRequest,
    traceparent: Option<String>,
    vote_id: VoteId,
    give_up: Instant,
    answer: AnswerSender,
    _room: OwnedSemaphorePermit,
}

/// A vote on a stream.
struct Sent {
    vote: Waiting,
    at: Instant,
}

impl Forwarder {
    /// Opens the lanes, and goes on opening them; `/health` shows whether there are any. At most `bound` votes wait for an
    /// answer.
    ///
    /// # Errors
    /// If tonic can't read the URL.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(to: &GrpcEndpoint, bound: usize, health: &Health) -> Result<Arc<Self>, tonic::transport::Error> {
        let client = Endpoint::from_shared(to.as_str().to_owned())?
            .connect_timeout(CONNECT_PATIENCE)
            .tcp_nodelay(true)
            // A producer that is gone without a word is noticed.
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            // The receipts of a whole lane fit, so that the producer never waits for us to read.
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20);
        let forwarder = Arc::new(Self {
            client,
            url: to.as_str().to_owned(),
            room: Arc::new(Semaphore::new(bound)),
            waiting: Mutex::default(),
            came: Notify::new(),
            open_lanes: AtomicUsize::new(0),
            problem: Mutex::new("not reached yet".to_owned()),
        });
        for number in 0..LANES {
            tokio::spawn(Arc::clone(&forwarder).keep_lane(number));
        }
        let watched = Arc::downgrade(&forwarder);
        health.check("grpc producer", Weight::Vital, move || {
            let state = watched.upgrade().ok_or_else(|| "closed".to_owned()).and_then(|forwarder| forwarder.state());
            async move { state }
        });
        Ok(forwarder)
    }

    fn state(&self) -> Result<Facts, String> {
        if self.open_lanes.load(Ordering::Relaxed) > 0 {
            return Ok(Facts::default());
        }
        Err(self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vote that waits longest, once there is one.
    async fn next(&self) -> Waiting {
        loop {
            let came = self.came.notified();
            let (vote, has_more) = {
                let mut waiting = self.waiting();
                (waiting.pop_front(), !waiting.is_empty())
            };
            match vote {
                // Each note wakes one lane, and a lane that stopped listening may have had it.
                Some(vote) => {
                    if has_more {
                        self.came.notify_one();
                    }
                    return vote;
                }
                None => came.await,
            }
        }
    }

    /// Puts votes back that were not answered, oldest first. Those whose time is over, here and in the queue, fail.
    fn put_back(&self, unanswered: VecDeque<Sent>, problem: &str) {
        let now = Instant::now();
        let mut waiting = self.waiting();
        for sent in unanswered.into_iter().rev() {
            waiting.push_front(sent.vote);
        }
        let (over, left): (VecDeque<_>, VecDeque<_>) = waiting.drain(..).partition(|vote| vote.give_up <= now);
        *waiting = left;
        drop(waiting);
        for vote in over {
            vote.fail(problem);
        }
        self.came.notify_one();
    }

    async fn keep_lane(self: Arc<Self>, number: usize) {
        // The lanes' connections end one after the other.
        let mut life = LANE_LIFE * u32::try_from(number + 1).unwrap_or(1) / u32::try_from(LANES).unwrap_or(1);
        loop {
            let mut unanswered = VecDeque::new();
            let ended = self.run_lane(life, &mut unanswered).await;
            life = LANE_LIFE;
            let Err(problem) = ended else { continue };
            let problem = format!("the gRPC producer at {} can't be used: {problem}", self.url);
            tracing::debug!(lane = number, problem, "a lane ended");
            self.put_back(unanswered, &problem);
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
            sleep(TRY_AGAIN).await;
        }
    }

    /// One stream, until its life is over and every vote on it is answered.
    ///
    /// # Errors
    /// Why it ended before that.
    async fn run_lane(&self, life: Duration, unanswered: &mut VecDeque<Sent>) -> Result<(), String> {
        let channel = self.client.connect().await.map_err(|error| cause(&error))?;
        let mut client = VoteServiceClient::new(channel);
        // Never full: no more votes than that are unanswered.
        let (messages, source) = mpsc::channel(LANE_VOTES);
        let mut outcomes =
            client.cast_votes(ReceiverStream::new(source)).await.map_err(|status| why(&status))?.into_inner();
        let _open = Open::new(&self.open_lanes);
        let mut messages = Some(messages);
        let retire = sleep(life);
        tokio::pin!(retire);
        loop {
            if messages.is_none() && unanswered.is_empty() {
                return Ok(());
            }
            let has_room = unanswered.len() < LANE_VOTES;
            let overdue = unanswered.front().map_or(Instant::now(), |oldest| oldest.at + ANSWER_PATIENCE);
            select! {
                biased;
                outcome = outcomes.next() => {
                    let outcome = outcome.ok_or("it ended the stream")?.map_err(|status| why(&status))?;
                    let sent = unanswered.pop_front().ok_or("it answered more votes than it was sent")?;
                    sent.vote.answer(outcome);
                }
                (vote, messages) = async { (self.next().await, messages.as_ref()) }, if has_room && messages.is_some() => {
                    if vote.traceparent.is_some() {
                        tokio::spawn(cast_alone(client.clone(), vote));
                    } else if let Some(messages) = messages {
                        // A stream that takes no more is broken: its outcomes end with the reason.
                        let _ = messages.try_send(vote.message.clone());
                        unanswered.push_back(Sent { vote, at: Instant::now() });
                    }
                }
                () = sleep_until(overdue), if !unanswered.is_empty() => {
                    return Err(format!("it did not answer within {ANSWER_PATIENCE:?}"));
                }
                () = &mut retire, if messages.is_some() => messages = None,
            }
        }
    }
}

impl Forward for Forwarder {
    fn submit(&self, request: VoteRequest) -> Result<Casting, Refusal> {
        let vote_id = request.resolve_vote_id()?;
        let (answer, casting) = Casting::forwarded(vote_id);
        let traceparent = request.traceparent.clone();
        let message = message(request, vote_id);
        let room = Arc::clone(&self.room).try_acquire_owned();
        let room = room.map_err(|_| unpublished(vote_id, PublishError::Full))?;
        let give_up = Instant::now() + PATIENCE;
        self.waiting().push_back(Waiting { message, traceparent, vote_id, give_up, answer, _room: room });
        self.came.notify_one();
        Ok(casting)
    }
}

impl Waiting {
    /// Whoever asked may have gone: then nobody is told.
    fn answer(self, outcome: CastVotesResponse) {
        let _ = self.answer.send(read(outcome, self.vote_id));
    }

    fn fail(self, problem: &str) {
        let error = PublishError::Unavailable(problem.to_owned());
        let _ = self.answer.send(Err(unpublished(self.vote_id, error)));
    }
}

/// Casts a vote on a stream that is the trace's.
async fn cast_alone(mut client: VoteServiceClient<Channel>, vote: Waiting) {
    let mut request = Request::new(tokio_stream::once(vote.message.clone()));
    if let Some(value) = vote.traceparent.as_deref().and_then(|text| text.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    let outcome = async {
        let mut outcomes = client.cast_votes(request).await?.into_inner();
        outcomes.next().await.unwrap_or_else(|| Err(Status::unavailable("it ended the stream")))
    };
    match tokio::time::timeout_at(vote.give_up, outcome).await {
        Ok(Ok(outcome)) => vote.answer(outcome),
        Ok(Err(status)) => vote.fail(&format!("the gRPC producer can't be used: {}", why(&status))),
        Err(_) => vote.fail(&format!("the gRPC producer did not answer within {PATIENCE:?}")),
    }
}

/// The vote as it was asked for: the gRPC door judges it.
fn message(request: VoteRequest, vote_id: VoteId) -> CastVoteRequest {
    let VoteRequest { name, album, year, rank, contest, voter, vote_id: _, idempotency_key: _, traceparent: _ } =
        request;
    // No year that is out of the message's range is a valid one.
    let year = year.map(|year| i32::try_from(year).unwrap_or(i32::MAX));
    let vote_id = Some(vote_id.to_string());
    CastVoteRequest { name: name.unwrap_or_default(), album, year, rank, contest, voter, vote_id }
}

/// What the gRPC door said of the vote of this id.
fn read(outcome: CastVotesResponse, vote_id: VoteId) -> Result<Accepted, Refusal> {
    match outcome.outcome {
        Some(cast_votes_response::Outcome::Receipt(receipt)) => accepted(&receipt, vote_id).ok_or_else(|| {
            unpublished(vote_id, PublishError::Unavailable(format!("no receipt of this vote: {receipt:?}")))
        }),
        Some(cast_votes_response::Outcome::Error(error)) => Err(refusal(error, vote_id)),
        None => Err(unpublished(vote_id, PublishError::Unavailable("neither a receipt nor an error came".to_owned()))),
    }
}

fn accepted(receipt: &CastVoteResponse, vote_id: VoteId) -> Option<Accepted> {
    let place = Place { partition: Partition(receipt.partition.try_into().ok()?), offset: Offset(receipt.offset) };
    let receipt_of = receipt.vote_id.parse().ok().map(VoteId);
    (receipt_of == Some(vote_id)).then_some(Accepted {
        vote_id,
        contest: receipt.contest.parse().ok()?,
        receipt: Receipt { place, accepted_at: UnixMillis(receipt.accepted_at_ms) },
    })
}

/// The refusal of the same rule. One that this version does not know is of the same kind by its code.
fn refusal(error: VoteError, vote_id: VoteId) -> Refusal {
    let like = || Reason::ALL.into_iter().find(|reason| reason.grpc_code() == error.code);
    Refusal {
        reason: Reason::from_slug(&error.reason).or_else(like).unwrap_or(Reason::LogUnavailable),
        field: Some(error.field).filter(|field| !field.is_empty()).map(Into::into),
        detail: error.message,
        vote_id: Some(vote_id),
    }
}

/// Counts a lane for as long as it is open.
struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    fn new(lanes: &'a AtomicUsize) -> Self {
        lanes.fetch_add(1, Ordering::Relaxed);
        Self(lanes)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a call failed: the cause of a broken connection, or what the server said.
fn why(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), cause)
}

/// The innermost error, which says what happened; those around it only say where.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
