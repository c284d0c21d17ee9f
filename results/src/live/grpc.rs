//! The gRPC service `ovation.v1.ResultsService`, with health and reflection.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use proto::v1::{BandTally, GetTallyRequest, Tally, WatchTallyRequest};
use proto_grpc::v1::results_service_server::{ResultsService, ResultsServiceServer};
use rocket::response::stream::stream;
use service::{
    CancellationToken,
    grpc::{GrpcServer, refusal_status, retry_later},
    requests::GrpcRequests,
    serve::ServeError,
};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};
use votes::{ContestId, StoreError};

use super::{
    contest_tally::ContestTally,
    stores::LiveStores,
    watch::{SubscribeError, SubscriptionEvent, Subscriptions},
};
use crate::{contests::ContestNames, problems::unavailable_detail};

/// The gRPC server. At shutdown, all streams end before the shutdown grace begins.
const SERVER: GrpcServer = GrpcServer {
    name: "results gRPC",
    descriptors: proto_grpc::DESCRIPTORS,
    keep_alive_interval: Duration::from_secs(20),
    keep_alive_timeout: Duration::from_secs(10),
    shutdown_grace: Duration::from_secs(2),
    max_concurrent_streams: None,
    stream_window: None,
    connection_window: None,
};

/// Serves until shutdown. Then ends every stream, and waits for the open requests.
pub(crate) async fn serve(
    listener: TcpListener,
    contests: ContestNames,
    stores: Arc<LiveStores>,
    subscriptions: Subscriptions,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let service = ResultsServiceServer::new(Results { contests, stores, subscriptions });
    let requests = GrpcRequests::new("results", &["GetTally", "WatchTally"]);
    SERVER.serve(service, requests, listener, None, shutdown).await
}

struct Results {
    contests: ContestNames,
    stores: Arc<LiveStores>,
    subscriptions: Subscriptions,
}

#[tonic::async_trait]
impl ResultsService for Results {
    async fn get_tally(&self, request: Request<GetTallyRequest>) -> Result<Response<Tally>, Status> {
        let contest = self.contest(&request.get_ref().contest)?;
        let contest_tally = self.stores.contest_tally(contest).await.map_err(|error| unavailable(&error))?;
        Ok(Response::new(message(&contest_tally)))
    }

    type WatchTallyStream = Pin<Box<dyn Stream<Item = Result<Tally, Status>> + Send>>;

    async fn watch_tally(
        &self,
        request: Request<WatchTallyRequest>,
    ) -> Result<Response<Self::WatchTallyStream>, Status> {
        let contest = self.contest(&request.get_ref().contest)?;
        let mut subscriber = self.subscriptions.subscribe(contest, "grpc").await.map_err(subscribe_error)?;
        Ok(Response::new(Box::pin(stream! {
            let mut sent: Option<Arc<ContestTally>> = None;
            loop {
                match subscriber.next_event().await {
                    SubscriptionEvent::Update(update) => {
                        let contest_tally = &update.contest_tally;
                        // A message has only the votes of the contest, so other changes are not sent.
                        if sent.as_ref().is_none_or(|sent| !sent.has_the_same_votes(contest_tally)) {
                            sent = Some(Arc::clone(contest_tally));
                            yield Ok(message(contest_tally));
                        }
                    }
                    SubscriptionEvent::StoreUnavailable(error) => {
                        yield Err(unavailable(&error));
                        break;
                    }
                    SubscriptionEvent::Closed => {
                        yield Err(subscribe_error(SubscribeError::ShuttingDown));
                        break;
                    }
                }
            }
        })))
    }
}

impl Results {
    fn contest(&self, name: &str) -> Result<&ContestId, Status> {
        self.contests.named(Some(name).filter(|name| !name.is_empty())).map_err(|refusal| refusal_status(&refusal))
    }
}

fn message(ContestTally { tally, .. }: &ContestTally) -> Tally {
    let band = |band: &votes::BandVotes| BandTally { name: band.name.clone(), votes: band.votes, share: band.share };
    Tally {
        contest: tally.contest.to_string(),
        total: tally.total,
        bands: tally.bands.iter().map(band).collect(),
        other_bands: tally.others.bands,
        other_votes: tally.others.votes,
        producers: tally.producers.clone().into_iter().collect(),
        version: tally.version,
        recounting: tally.recounting,
    }
}

fn unavailable(error: &StoreError) -> Status {
    retry_later(Code::Unavailable, "STORE_UNAVAILABLE", unavailable_detail(error))
}

fn subscribe_error(reason: SubscribeError) -> Status {
    match reason {
        SubscribeError::TooManyStreams => {
            retry_later(Code::ResourceExhausted, "TOO_MANY_STREAMS", "too many streams are open; try again")
        }
        SubscribeError::StoreUnavailable(error) => unavailable(&error),
        SubscribeError::ShuttingDown => {
            retry_later(Code::Unavailable, "SHUTTING_DOWN", "the server is shutting down; try again")
        }
    }
}
