//! `ovation.v1.ResultsService`, with health and reflection.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use proto::v1::{
    BandTally, GetTallyRequest, Tally, WatchTallyRequest,
    results_service_server::{ResultsService, ResultsServiceServer},
};
use rocket::response::stream::stream;
use service::{
    CancellationToken,
    grpc::{retry_later, status},
    http::ServeError,
    requests::GrpcRequests,
};
use tokio::{net::TcpListener, select, time::sleep};
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::ServingStatus;
use votes::{ContestId, StoreError};

use crate::{
    stores::{Stores, unavailable_detail},
    tally::Standing,
    watch::{News, NotFollowed, Watch},
};

/// How long open connections may finish after shutdown began. All streams have ended by then.
const GRACE: Duration = Duration::from_secs(2);

/// A connection whose other end is silent for the interval is asked, and cut if it does not answer within the time-out.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Bytes of a request's headers.
const MAX_HEADERS: u32 = 16 * 1024;

/// Serves until shutdown, then ends every stream and drains.
pub(crate) async fn serve(
    listener: TcpListener,
    stores: Arc<Stores>,
    watch: Watch,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr().unwrap_or_else(|_| ([0, 0, 0, 0], 0).into());
    let error = |problem: &dyn std::error::Error| ServeError::new("results gRPC", address, &problem.to_string());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ResultsServiceServer<Results>>().await;
    let leave = async {
        shutdown.cancelled().await;
        health.set_service_status("", ServingStatus::NotServing).await;
        health.set_not_serving::<ResultsServiceServer<Results>>().await;
        sleep(GRACE).await;
    };
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .http2_max_header_list_size(MAX_HEADERS)
        .layer(GrpcRequests::new("results", &["GetTally", "WatchTally"]))
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(|problem| error(&problem))?)
        .add_service(reflection().build_v1alpha().map_err(|problem| error(&problem))?)
        .add_service(ResultsServiceServer::new(Results { stores, watch }))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    tracing::info!(server = "results gRPC", %address, "listening");
    select! {
        outcome = served => outcome.map_err(|problem| error(&problem)),
        () = leave => Ok(()),
    }
}

struct Results {
    stores: Arc<Stores>,
    watch: Watch,
}

#[tonic::async_trait]
impl ResultsService for Results {
    async fn get_tally(&self, request: Request<GetTallyRequest>) -> Result<Response<Tally>, Status> {
        let contest = self.contest(&request.get_ref().contest)?;
        let standing = self.stores.standing(contest).await.map_err(|error| unavailable(&error))?;
        Ok(Response::new(message(&standing)))
    }

    type WatchTallyStream = Pin<Box<dyn Stream<Item = Result<Tally, Status>> + Send>>;

    async fn watch_tally(
        &self,
        request: Request<WatchTallyRequest>,
    ) -> Result<Response<Self::WatchTallyStream>, Status> {
        let contest = self.contest(&request.get_ref().contest)?;
        let mut follower = self.watch.follow(contest, "grpc").await.map_err(not_followed)?;
        Ok(Response::new(Box::pin(stream! {
            let mut sent: Option<Arc<Standing>> = None;
            loop {
                match follower.news().await {
                    News::Update(update) => {
                        let standing = &update.standing;
                        // The message has only the contest's own votes: nothing else is a change of it.
                        if sent.as_ref().is_none_or(|sent| !sent.has_the_same_votes(standing)) {
                            sent = Some(Arc::clone(standing));
                            yield Ok(message(standing));
                        }
                    }
                    News::Down(error) => {
                        yield Err(unavailable(&error));
                        break;
                    }
                    News::Over => {
                        yield Err(not_followed(NotFollowed::Leaving));
                        break;
                    }
                }
            }
        })))
    }
}

impl Results {
    fn contest(&self, name: &str) -> Result<&ContestId, Status> {
        self.stores.contest(Some(name).filter(|name| !name.is_empty())).map_err(|refusal| status(&refusal))
    }
}

fn message(Standing { tally, .. }: &Standing) -> Tally {
    let band = |band: &votes::BandVotes| BandTally { name: band.name.clone(), votes: band.votes, share: band.share };
    Tally {
        contest: tally.contest.to_string(),
        total: tally.total,
        bands: tally.bands.iter().map(band).collect(),
        other_bands: tally.others.bands,
        other_votes: tally.others.votes,
        doors: tally.doors.clone().into_iter().collect(),
        version: tally.version,
    }
}

fn unavailable(error: &StoreError) -> Status {
    retry_later(Code::Unavailable, "STORE_UNAVAILABLE", unavailable_detail(error))
}

fn not_followed(reason: NotFollowed) -> Status {
    match reason {
        NotFollowed::Full => retry_later(
            Code::ResourceExhausted,
            "TOO_MANY_STREAMS",
            "there are as many streams as there may be; try again",
        ),
        NotFollowed::Down(error) => unavailable(&error),
        NotFollowed::Leaving => retry_later(Code::Unavailable, "LEAVING", "this server is leaving; try again"),
    }
}
