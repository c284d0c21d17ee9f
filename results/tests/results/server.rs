//! A server of a test.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use results::{Limits, Sources};
use service::{CancellationToken, http::ServeError, token::ReadToken};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use crate::memory::Memory;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// As [`start`], with other limits.
pub(crate) async fn start_with(limits: Limits) -> Server {
    start_on(Memory::new(), limits, None).await
}

/// As [`start`], on stores that have something already, for who has a token.
pub(crate) async fn start_on(memory: Arc<Memory>, limits: Limits, token: Option<ReadToken>) -> Server {
    let sources = memory.sources(&["bands", "quiet"], token).await;
    serve(memory, sources, limits).await
}

/// Serves what is in these sources.
pub(crate) async fn serve(memory: Arc<Memory>, sources: Sources, limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let grpc = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let (sender, bound) = oneshot::channel();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let task = tokio::spawn(results::run_with(limits, any, listener, sources, shutdown.clone(), |address| {
        sender.send(address).unwrap();
    }));
    Server { memory, http: soon(bound).await.unwrap(), grpc, shutdown, task }
}

/// Waits, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it takes too long")
}
