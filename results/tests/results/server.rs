//! The server of a test.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use results::{Dependencies, Limits, Listeners, Sources};
use service::{CancellationToken, serve::ServeError, token::ReadToken};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use crate::memory::Memory;

/// The longest time that a test waits for a future.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server and its stores.
pub(crate) struct Server {
    pub(crate) memory: Arc<Memory>,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ServeError>>,
}

/// Serves the contests `bands` and `quiet`.
pub(crate) async fn start() -> Server {
    start_with(Limits::default()).await
}

/// Serves as [`start`] does, with other limits.
pub(crate) async fn start_with(limits: Limits) -> Server {
    start_on(Memory::new(), limits, None).await
}

/// Serves as [`start`] does, from these stores. If `token` is `Some`, requests for votes and datasets need the token.
pub(crate) async fn start_on(memory: Arc<Memory>, limits: Limits, token: Option<ReadToken>) -> Server {
    let sources = memory.sources(&["bands", "quiet"], token).await;
    serve(memory, sources, limits).await
}

/// Serves from these sources.
pub(crate) async fn serve(memory: Arc<Memory>, sources: Sources, limits: Limits) -> Server {
    let listener = || TcpListener::bind("127.0.0.1:0");
    let listeners = Listeners { http: listener().await.unwrap(), grpc: listener().await.unwrap() };
    let (http, grpc) = (listeners.http.local_addr().unwrap(), listeners.grpc.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let dependencies = Dependencies { sources, limits, log_writer: None };
    let task = tokio::spawn(results::run(listeners, dependencies, shutdown.clone()));
    Server { memory, http, grpc, shutdown, task }
}

/// Waits for a future. Fails the test if the future takes longer than [`TEST_TIMEOUT`].
pub(crate) async fn with_timeout<F: Future>(future: F) -> F::Output {
    timeout(TEST_TIMEOUT, future).await.expect("the future is ready within the time-out")
}
