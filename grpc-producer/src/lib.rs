//! The gRPC door: takes votes over gRPC and answers when the vote log has them.
//!
//! | what | file |
//! |---|---|
//! | `VoteService` on the wire: its methods, their limits | `service` |
//! | `CastVotes`: many votes on one stream, without waiting for each | `stream` |
//! | a vote's bytes, read as strictly as its JSON | `message` |
//! | a refusal as a status with details, or as an item of a stream | `status` |
//! | what the health service says, and when | `readiness` |
//!
//! A vote's meaning is not in here: that is [`votes::Door`].

mod message;
mod readiness;
mod service;
mod status;
mod stream;

use std::{error::Error, net::SocketAddr, time::Duration};

use ::service::{CancellationToken, Health, door::MeteredDoor, http::ServeError, requests::GrpcRequests};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

use crate::service::VoteService;

/// How long open calls may take to end after shutdown began.
const GRACE: Duration = Duration::from_secs(3);

/// Streams of one connection that may be open at the same time; the client's library queues what is more.
const STREAMS: u32 = 1_024;

/// Bytes that a client may send ahead of us on one stream, and on one connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves the door until shutdown, then ends open calls: each vote that was read is answered, within three seconds.
///
/// # Errors
/// If the listener fails.
pub async fn run(
    listener: TcpListener,
    door: MeteredDoor,
    health: Health,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)));
    let failed = |error: &dyn Error| ServeError::new("grpc", address, &error);
    tracing::info!(server = "grpc", %address, "listening");
    let (readiness, health_service) = readiness::follow(health, shutdown.clone());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let requests = GrpcRequests::new("grpc", &[service::CAST_VOTE, service::CAST_VOTES]);
    let serve = Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 * 1024)
        .layer(requests.clone())
        .add_service(VoteService::new(door, requests, shutdown.clone()))
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(|error| failed(&error))?)
        .add_service(reflection().build_v1alpha().map_err(|error| failed(&error))?)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown.clone().cancelled_owned(),
        );
    tokio::select! {
        outcome = serve => outcome.map_err(|error| failed(&error)),
        never = readiness => match never {},
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(GRACE).await;
        } => {
            // Everything that was acknowledged is durable; what is cut was not.
            tracing::warn!(server = "grpc", "left with calls still open");
            Ok(())
        }
    }
}
