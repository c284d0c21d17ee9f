//! Serves a gRPC service, together with the health service and reflection.

use std::{convert::Infallible, error::Error, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};

use super::readiness;
use crate::{
    health::Health,
    requests::GrpcRequests,
    serve::{ServeError, address_of},
};

/// The maximum size of a request's headers, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// The settings of a gRPC server. All other settings are the same for all our servers.
#[derive(Clone, Copy, Debug)]
pub struct GrpcServer {
    /// The server's name, in the log and in errors.
    pub name: &'static str,
    /// The server's protobuf files for reflection, as an encoded `FileDescriptorSet`.
    pub descriptors: &'static [u8],
    /// The time without a frame from the client after which the server sends a ping.
    pub keep_alive_interval: Duration,
    /// How long the client may take to respond to a ping. After that, the server closes the connection.
    pub keep_alive_timeout: Duration,
    /// How long open calls may take to end after shutdown began. After that, the server aborts them.
    pub shutdown_grace: Duration,
    /// The maximum number of open calls on one connection. The library of the client queues further calls. `None` means
    /// that the number is unlimited.
    pub max_concurrent_streams: Option<u32>,
    /// How many bytes a client may send on one stream before the server has read them. `None` means the default of
    /// HTTP/2.
    pub stream_window: Option<u32>,
    /// The same limit for all streams of a connection together.
    pub connection_window: Option<u32>,
}

impl GrpcServer {
    /// Serves one service until shutdown, then waits up to [`shutdown_grace`](Self::shutdown_grace) for open calls to
    /// end. If there is a `health`, the gRPC health service reports the readiness of the process.
    ///
    /// # Errors
    /// If the descriptors are invalid or the listener fails.
    pub async fn serve<S>(
        self,
        service: S,
        requests: GrpcRequests,
        listener: TcpListener,
        health: Option<Health>,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError>
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let address = address_of(&listener);
        let failed = |error: &dyn Error| ServeError::new(self.name, address, &error);
        let (readiness, health_service) = readiness::follow(S::NAME, health, shutdown.clone());
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(self.descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let serve = Server::builder()
            .max_concurrent_streams(self.max_concurrent_streams)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .http2_keepalive_interval(Some(self.keep_alive_interval))
            .http2_keepalive_timeout(Some(self.keep_alive_timeout))
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .layer(requests)
            .add_service(service)
            .add_service(health_service)
            .add_service(reflection().build_v1().map_err(|error| failed(&error))?)
            .add_service(reflection().build_v1alpha().map_err(|error| failed(&error))?)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                shutdown.clone().cancelled_owned(),
            );
        tracing::info!(server = self.name, %address, "listening");
        tokio::select! {
            outcome = serve => outcome.map_err(|error| failed(&error)),
            never = readiness => match never {},
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(self.shutdown_grace).await;
            } => {
                // No acknowledged vote is lost: it is durable. The votes of an aborted call that have no receipt yet
                // are not acknowledged.
                tracing::warn!(server = self.name, "aborting the calls that are open after the shutdown grace period");
                Ok(())
            }
        }
    }
}
