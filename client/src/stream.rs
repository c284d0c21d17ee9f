//! A stream of votes: `VoteService.CastVotes`.
//!
//! A vote is unanswered from the time at which it is sent until its outcome arrives. The outcomes arrive in the order
//! of the votes, so the next outcome belongs to the oldest unanswered vote. If a stream closes early, some of its
//! unanswered votes may be on the log. The caller casts all of them again on another stream, with the same `vote_id`.
//! Each vote counts once, even if it was already on the log.
//!
//! This file manages one stream. The caller decides which votes it sends, when it gives up a stream, and when it sends
//! a vote again. The callers differ:
//! - The forwarder of the REST producer has one queue for all its streams. It returns unanswered votes to the head of
//!   the queue, so that its clients do not notice the failure of a stream. It replaces a stream after a fixed time.
//! - A worker of a flood generates its own votes. It pauses before it casts a vote again, and reports each failure.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use proto::v1::{CastVoteRequest, CastVotesResponse};
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// A stream of votes. `V` is the caller's data for a vote, which is returned with its outcome.
pub struct VoteStream<V> {
    /// The sending half. `None` after [`finish`](Self::finish).
    messages: Option<mpsc::Sender<CastVoteRequest>>,
    outcomes: Outcomes,
    /// The unanswered votes, oldest first.
    unanswered: VecDeque<SentVote<V>>,
    max_unanswered: usize,
    timeout: Duration,
}

/// Why a stream closed.
#[derive(Debug)]
pub enum Closed {
    /// The call ended with an error status, from the server or for a broken connection.
    Status(Status),
    /// The server ended the stream without an error.
    Ended,
    /// The server sent an outcome while no vote was unanswered.
    UnexpectedOutcome,
}

/// An unanswered vote.
struct SentVote<V> {
    vote: V,
    sent_at: Instant,
}

type Call = Pin<Box<dyn Future<Output = Result<Streaming<CastVotesResponse>, Status>> + Send>>;

/// The receiving half of a stream.
enum Outcomes {
    /// The call has not begun, or the server has not responded yet.
    Opening(Call),
    Open(Box<Streaming<CastVotesResponse>>),
    /// The call failed.
    Failed,
}

impl<V> VoteStream<V> {
    /// Creates a stream, without calling the server yet. The caller may send votes at once. The call begins when the
    /// caller waits for the first outcome. If the call fails, the stream closes with its status.
    ///
    /// The caller must respect two limits:
    /// - At most `max_unanswered` votes may be unanswered. Check [`has_room`](Self::has_room) before each
    ///   [`send`](Self::send).
    /// - A vote is overdue if it is unanswered for longer than `timeout`. The stream does not end then: check
    ///   [`overdue_at`](Self::overdue_at), and drop a stream with an overdue vote.
    pub fn new(client: &VoteServiceClient<Channel>, max_unanswered: usize, timeout: Duration) -> Self {
        // A message is in the channel only while its vote is unanswered. So the channel has room whenever `has_room`
        // returns true.
        let (messages, source) = mpsc::channel(max_unanswered);
        let mut client = client.clone();
        let call = async move { Ok(client.cast_votes(ReceiverStream::new(source)).await?.into_inner()) };
        Self {
            messages: Some(messages),
            outcomes: Outcomes::Opening(Box::pin(call)),
            unanswered: VecDeque::new(),
            max_unanswered,
            timeout,
        }
    }

    /// Like [`new`](Self::new), but begins the call and waits until the server has begun to respond.
    ///
    /// # Errors
    /// The status of the call, if it fails.
    pub async fn open(
        client: &VoteServiceClient<Channel>,
        max_unanswered: usize,
        timeout: Duration,
    ) -> Result<Self, Status> {
        let mut stream = Self::new(client, max_unanswered, timeout);
        poll_fn(|context| stream.outcomes.poll_open(context)).await?;
        Ok(stream)
    }

    /// Returns the number of unanswered votes.
    pub fn unanswered_count(&self) -> usize {
        self.unanswered.len()
    }

    /// Returns whether another vote may be sent: [`finish`](Self::finish) was not called, and fewer than the maximum
    /// number of votes are unanswered.
    pub fn has_room(&self) -> bool {
        self.messages.is_some() && self.unanswered.len() < self.max_unanswered
    }

    /// Sends a vote. `vote` is the data that the stream returns with the outcome.
    ///
    /// This can't fail. If the stream is closed or has no room, the message is not sent, but the vote is unanswered
    /// nevertheless. Then [`next`](Self::next) returns why the stream closed, or the vote becomes overdue.
    pub fn send(&mut self, message: CastVoteRequest, vote: V, now: Instant) {
        if let Some(messages) = &self.messages {
            let _ = messages.try_send(message);
        }
        self.unanswered.push_back(SentVote { vote, sent_at: now });
    }

    /// Waits for the next outcome. Returns the oldest unanswered vote and its outcome. You may drop the future: no
    /// outcome is lost.
    ///
    /// # Errors
    /// The reason if the stream closed. [`into_unanswered`](Self::into_unanswered) then returns the unanswered votes.
    pub async fn next(&mut self) -> Result<(V, CastVotesResponse), Closed> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Like [`next`](Self::next), but returns `None` instead of waiting.
    pub fn try_next(&mut self) -> Option<Result<(V, CastVotesResponse), Closed>> {
        self.next().now_or_never()
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<(V, CastVotesResponse), Closed>> {
        let outcome = match ready!(self.outcomes.poll_next(context)) {
            Some(outcome) => outcome.map_err(Closed::Status)?,
            None => return Poll::Ready(Err(Closed::Ended)),
        };
        let oldest = self.unanswered.pop_front().ok_or(Closed::UnexpectedOutcome)?;
        Poll::Ready(Ok((oldest.vote, outcome)))
    }

    /// Returns the time at which the oldest unanswered vote is overdue, or `None` if no vote is unanswered. The time
    /// may be in the past: the caller must act on it, because the stream does not.
    pub fn overdue_at(&self) -> Option<Instant> {
        self.unanswered.front().map(|oldest| oldest.sent_at + self.timeout)
    }

    /// Ends the sending half: no more votes can be sent. The server ends the stream after the last outcome.
    pub fn finish(&mut self) {
        self.messages = None;
    }

    /// Returns whether [`finish`](Self::finish) was called and every vote has its outcome.
    pub fn is_finished(&self) -> bool {
        self.messages.is_none() && self.unanswered.is_empty()
    }

    /// Returns whether [`finish`](Self::finish) was called.
    pub fn is_finishing(&self) -> bool {
        self.messages.is_none()
    }

    /// Closes the stream and returns the unanswered votes, oldest first.
    pub fn into_unanswered(self) -> impl DoubleEndedIterator<Item = V> {
        self.unanswered.into_iter().map(|sent| sent.vote)
    }
}

impl Outcomes {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Self::Opening(call) = self {
            match ready!(call.as_mut().poll(context)) {
                Ok(outcomes) => *self = Self::Open(Box::new(outcomes)),
                Err(status) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(status));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<CastVotesResponse, Status>>> {
        if let Err(status) = ready!(self.poll_open(context)) {
            return Poll::Ready(Some(Err(status)));
        }
        match self {
            Self::Open(outcomes) => outcomes.poll_next_unpin(context),
            Self::Opening(_) | Self::Failed => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::Stream;
    use proto::v1::{CastVoteResponse, cast_votes_response::Outcome};
    use proto_grpc::v1::vote_service_server::{VoteService, VoteServiceServer};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, transport::Server};

    use super::*;
    use crate::endpoint;

    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    /// Sends a receipt for each vote, except for these ids: `fail` ends the stream with an error status, `end` ends the
    /// stream without one, `silence` gets no outcome, and `twice` gets two receipts.
    struct Producer;

    fn receipt(vote_id: String) -> CastVotesResponse {
        let receipt = CastVoteResponse { vote_id, ..CastVoteResponse::default() };
        CastVotesResponse { outcome: Some(Outcome::Receipt(receipt)) }
    }

    #[tonic::async_trait]
    impl VoteService for Producer {
        async fn cast_vote(&self, _: Request<CastVoteRequest>) -> Result<Response<CastVoteResponse>, Status> {
            Err(Status::unimplemented("only streams"))
        }

        type CastVotesStream = Pin<Box<dyn Stream<Item = Result<CastVotesResponse, Status>> + Send>>;

        async fn cast_votes(
            &self,
            request: Request<Streaming<CastVoteRequest>>,
        ) -> Result<Response<Self::CastVotesStream>, Status> {
            let mut votes = request.into_inner();
            let (outcomes, stream) = mpsc::channel(100);
            tokio::spawn(async move {
                while let Some(Ok(vote)) = votes.next().await {
                    let id = vote.vote_id.unwrap_or_default();
                    let sent = match id.as_str() {
                        "end" => return,
                        "silence" => continue,
                        "fail" => outcomes.send(Err(Status::unavailable("failed"))).await,
                        "twice" => {
                            let _ = outcomes.send(Ok(receipt(id.clone()))).await;
                            outcomes.send(Ok(receipt(id))).await
                        }
                        _ => outcomes.send(Ok(receipt(id))).await,
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            });
            Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
        }
    }

    async fn client() -> VoteServiceClient<Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(VoteServiceServer::new(Producer)).serve_with_incoming(incoming));
        let endpoint = endpoint(Channel::from_shared(format!("http://{address}")).unwrap());
        VoteServiceClient::new(endpoint.connect().await.unwrap())
    }

    fn send(stream: &mut VoteStream<&'static str>, id: &'static str) {
        let message = CastVoteRequest { vote_id: Some(id.to_owned()), ..CastVoteRequest::default() };
        stream.send(message, id, Instant::now());
    }

    #[tokio::test]
    async fn outcomes_arrive_in_the_order_of_the_votes_until_the_stream_is_finished() {
        let mut stream = VoteStream::open(&client().await, 3, TEST_TIMEOUT).await.unwrap();
        for id in ["a", "b", "c"] {
            assert!(stream.has_room());
            send(&mut stream, id);
        }
        assert!(!stream.has_room() && stream.unanswered_count() == 3);
        stream.finish();
        assert!(stream.is_finishing() && !stream.is_finished());
        for id in ["a", "b", "c"] {
            let (vote, outcome) = stream.next().await.unwrap();
            assert_eq!((vote, outcome), (id, receipt(id.to_owned())));
        }
        assert!(stream.is_finished());
        assert!(matches!(stream.next().await, Err(Closed::Ended)));
    }

    #[tokio::test]
    async fn a_closed_stream_returns_its_unanswered_votes_oldest_first() {
        let client = client().await;
        for (last, is_expected) in [
            (
                "fail",
                (|closed| matches!(closed, Closed::Status(status) if status.message() == "failed")) as fn(_) -> bool,
            ),
            ("end", |closed| matches!(closed, Closed::Ended)),
        ] {
            let mut stream = VoteStream::new(&client, 10, TEST_TIMEOUT);
            for id in ["a", last, "b"] {
                send(&mut stream, id);
            }
            assert_eq!(stream.next().await.unwrap().0, "a");
            assert!(is_expected(stream.next().await.unwrap_err()), "{last}");
            assert_eq!(stream.into_unanswered().collect::<Vec<_>>(), [last, "b"]);
        }
    }

    #[tokio::test]
    async fn an_unexpected_outcome_closes_the_stream() {
        let mut stream = VoteStream::new(&client().await, 10, TEST_TIMEOUT);
        send(&mut stream, "twice");
        assert_eq!(stream.next().await.unwrap().0, "twice");
        assert!(matches!(stream.next().await, Err(Closed::UnexpectedOutcome)));
    }

    #[tokio::test]
    async fn a_vote_is_overdue_after_the_timeout() {
        let mut stream = VoteStream::open(&client().await, 10, TEST_TIMEOUT).await.unwrap();
        assert_eq!(stream.overdue_at(), None);
        assert!(stream.try_next().is_none());
        let before = Instant::now();
        send(&mut stream, "silence");
        let overdue = stream.overdue_at().unwrap();
        assert!((before + TEST_TIMEOUT..=Instant::now() + TEST_TIMEOUT).contains(&overdue));
    }

    #[tokio::test]
    async fn a_stream_whose_call_fails_closes_with_its_status() {
        // The socket is bound and does not listen, so connections are refused.
        let port = tokio::net::TcpSocket::new_v4().unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = port.local_addr().unwrap();
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let client = VoteServiceClient::new(channel);
        assert!(VoteStream::<()>::open(&client, 10, TEST_TIMEOUT).await.is_err());
        let mut stream = VoteStream::new(&client, 10, TEST_TIMEOUT);
        send(&mut stream, "a");
        assert!(matches!(stream.next().await, Err(Closed::Status(_))));
        assert!(matches!(stream.next().await, Err(Closed::Ended)));
        assert_eq!(stream.into_unanswered().count(), 1);
    }
}
