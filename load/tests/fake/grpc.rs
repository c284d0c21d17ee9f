//! The fake gRPC producer.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use proto::v1::{CastVoteRequest, CastVoteResponse, CastVotesResponse, VoteError, cast_votes_response::Outcome};
use proto_grpc::v1::vote_service_server::{VoteService, VoteServiceServer};
use service::grpc::{SHUTTING_DOWN, retry_later};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};

use super::{Reaction, State};

pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    let incoming = TcpListenerStream::new(listener).inspect(|stream| {
        if let Ok(stream) = stream {
            stream.set_nodelay(true).unwrap();
        }
    });
    Server::builder()
        .add_service(VoteServiceServer::new(FakeProducer(state)))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

struct FakeProducer(Arc<State>);

#[tonic::async_trait]
impl VoteService for FakeProducer {
    async fn cast_vote(&self, request: Request<CastVoteRequest>) -> Result<Response<CastVoteResponse>, Status> {
        match outcome(request.into_inner(), &self.0).await? {
            Outcome::Receipt(receipt) => Ok(Response::new(receipt)),
            Outcome::Error(error) => Err(Status::new(Code::from_i32(error.code), error.message)),
        }
    }

    type CastVotesStream = Pin<Box<dyn Stream<Item = Result<CastVotesResponse, Status>> + Send>>;

    async fn cast_votes(
        &self,
        request: Request<Streaming<CastVoteRequest>>,
    ) -> Result<Response<Self::CastVotesStream>, Status> {
        let state = Arc::clone(&self.0);
        let outcomes = request.into_inner().then(move |vote| {
            let state = Arc::clone(&state);
            async move { Ok(CastVotesResponse { outcome: Some(outcome(vote?, &state).await?) }) }
        });
        Ok(Response::new(Box::pin(outcomes)))
    }
}

async fn outcome(vote: CastVoteRequest, state: &State) -> Result<Outcome, Status> {
    let vote_id = vote.vote_id.unwrap();
    let error = |code: Code, message: &str| {
        Outcome::Error(VoteError {
            code: code as i32,
            message: message.to_owned(),
            vote_id: vote_id.clone(),
            ..VoteError::default()
        })
    };
    match state.react(&vote_id) {
        Reaction::Accept => {}
        Reaction::RefuseTemporarily => return Ok(error(Code::Unavailable, "too many votes are waiting")),
        Reaction::Refuse => return Ok(error(Code::InvalidArgument, "name: required")),
        Reaction::Stall(time) => sleep(time).await,
        Reaction::Hang => std::future::pending().await,
        Reaction::Disconnect => return Err(Status::internal("disconnected")),
        Reaction::ShutDown => {
            return Err(retry_later(Code::Unavailable, SHUTTING_DOWN, "the producer is shutting down"));
        }
    }
    let contest = vote.contest.unwrap_or_else(|| "bands".to_owned());
    Ok(Outcome::Receipt(CastVoteResponse { vote_id, contest, partition: 3, offset: 7, accepted_at_ms: 1 }))
}
