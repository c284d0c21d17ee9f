//! The gRPC producer: receives votes over gRPC, and responds to each when it is durable on the vote log.
//!
//! | what | file |
//! |---|---|
//! | `VoteService`: its methods and their limits | `service` |
//! | `CastVotes`: many votes on one stream, without waiting for each | `stream` |
//! | parsing a vote from protobuf, as strictly as from JSON | `message` |
//! | converting receipts and refusals to messages and statuses | `status` |
//!
//! This crate does not validate the content of votes: [`votes::Ingest`] does.

mod message;
mod service;
mod status;
mod stream;

use std::{sync::Arc, time::Duration};

use ::service::{
    CancellationToken, Context, Health, grpc::GrpcServer, health::Criticality, ingest::MeteredIngest, program::Failure,
    requests::GrpcRequests, serve::ServeError,
};
use stores::Stores;
use tokio::net::TcpListener;
use votes::{Ingest, LogWriter, ProducerKind};

use crate::service::VoteService;

/// The settings of the server.
const SERVER: GrpcServer = GrpcServer {
    name: "grpc",
    descriptors: proto_grpc::DESCRIPTORS,
    keep_alive_interval: Duration::from_secs(30),
    keep_alive_timeout: Duration::from_secs(10),
    shutdown_grace: Duration::from_secs(3),
    max_concurrent_streams: Some(1_024),
    stream_window: Some(256 * 1024),
    connection_window: Some(1024 * 1024),
};

/// The dependencies of the service.
pub struct Dependencies {
    /// Submits votes to the log.
    pub ingest: MeteredIngest,
    /// The health of the process. The gRPC health service reports its readiness.
    pub health: Health,
    /// The vote log, if the producer has to flush it at the end.
    pub log_writer: Option<Arc<dyn LogWriter>>,
}

impl Dependencies {
    /// Opens the dependencies: the contests, the secret and the vote log.
    ///
    /// # Errors
    /// If the configuration is invalid, or the log does not have the required properties. If the log can't be reached,
    /// this waits until it can.
    pub async fn open(context: &Context, stores: &Stores) -> Result<Self, Failure> {
        let Context { config, health, .. } = context;
        let contests = config.contests()?;
        let secret = stores.secret(&contests)?;
        let log_writer = stores.log_writer(Criticality::Required).await?;
        let ingest = Ingest::new(ProducerKind::Grpc, contests, secret, Arc::clone(&log_writer));
        let ingest = MeteredIngest::new(ingest, config.trusted_proxies.clone());
        Ok(Self { ingest, health: health.clone(), log_writer: Some(log_writer) })
    }
}

/// Serves the producer until shutdown, then waits up to three seconds for open calls to end. In this time, the client
/// receives the outcome of each vote that the producer has read. Calls that are still open after that are aborted.
///
/// # Errors
/// If the listener fails.
pub async fn run(
    listener: TcpListener,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Dependencies { ingest, health, log_writer } = dependencies;
    let requests = GrpcRequests::new(SERVER.name, &[service::CAST_VOTE, service::CAST_VOTES]);
    let service = VoteService::new(ingest, requests.clone(), shutdown.clone());
    let outcome = SERVER.serve(service, requests, listener, Some(health), shutdown).await;
    if let Some(log_writer) = log_writer {
        log_writer.flush().await;
    }
    outcome
}
