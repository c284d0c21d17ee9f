//! The error of an HTTP or gRPC server.

use std::net::SocketAddr;

use tokio::net::TcpListener;

/// The error that ended a server.
#[derive(Debug, thiserror::Error)]
#[error("{server} can't serve on {address}: {problem}")]
pub struct ServeError {
    server: &'static str,
    address: SocketAddr,
    problem: String,
}

impl ServeError {
    /// Creates an error that names the server and its address.
    pub fn new(server: &'static str, address: SocketAddr, problem: &impl ToString) -> Self {
        Self { server, address, problem: problem.to_string() }
    }
}

/// Returns the address of a listener, for logs and errors. If it is unknown, returns `0.0.0.0:0`.
pub(crate) fn address_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0; 4], 0)))
}
