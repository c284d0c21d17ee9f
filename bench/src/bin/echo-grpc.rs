//! A bare tonic server, to compare the gRPC producer with: it parses the same vote and returns a receipt of the same
//! form, without a vote log.

use std::{net::SocketAddr, pin::Pin};

use clap::Parser;
use futures::{Stream, StreamExt};
use proto::v1::{CastVoteRequest, CastVoteResponse, CastVotesResponse, cast_votes_response::Outcome};
use proto_grpc::v1::vote_service_server::{VoteService, VoteServiceServer};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Return a receipt for each vote over gRPC, and store nothing
#[derive(Parser)]
#[command(version, after_help = "Example:\n  echo-grpc --listen 127.0.0.1:50051")]
struct Flags {
    /// The address to listen on
    #[arg(long)]
    listen: SocketAddr,
}

struct Echo;

#[tonic::async_trait]
impl VoteService for Echo {
    async fn cast_vote(&self, request: Request<CastVoteRequest>) -> Result<Response<CastVoteResponse>, Status> {
        Ok(Response::new(receipt(request.into_inner())))
    }

    type CastVotesStream = Pin<Box<dyn Stream<Item = Result<CastVotesResponse, Status>> + Send>>;

    async fn cast_votes(
        &self,
        request: Request<Streaming<CastVoteRequest>>,
    ) -> Result<Response<Self::CastVotesStream>, Status> {
        let response = |vote| CastVotesResponse { outcome: Some(Outcome::Receipt(receipt(vote))) };
        Ok(Response::new(request.into_inner().map(move |vote| vote.map(response)).boxed()))
    }
}

fn receipt(vote: CastVoteRequest) -> CastVoteResponse {
    CastVoteResponse {
        vote_id: vote.vote_id.unwrap_or_default(),
        contest: "bands".to_owned(),
        partition: 7,
        offset: 1_234_567,
        accepted_at_ms: 1_795_000_000_123,
    }
}

#[tokio::main]
async fn main() -> Result<(), tonic::transport::Error> {
    let Flags { listen } = Flags::parse();
    Server::builder().tcp_nodelay(true).add_service(VoteServiceServer::new(Echo)).serve(listen).await
}
