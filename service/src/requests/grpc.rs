//! Measures the calls of a gRPC server.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tonic::codegen::http;
use tower::{Layer, Service};

use super::method::{GRPC_STATUSES, MethodMetrics, OTHER, Status};

/// A layer around the services of a gRPC server that measures the responses. A method is a procedure, for example
/// `CastVote`. The time of a call ends at the head of its response, also for a stream.
#[derive(Clone)]
pub struct GrpcRequests {
    methods: Arc<HashMap<&'static str, MethodMetrics>>,
}

impl GrpcRequests {
    /// Creates the layer for a server with these procedures.
    pub fn new(server: &'static str, procedures: &[&'static str]) -> Self {
        let names = procedures.iter().copied().chain([OTHER]);
        Self { methods: Arc::new(names.map(|name| (name, MethodMetrics::new(server, name))).collect()) }
    }

    /// Returns the metrics of the procedure at the end of a path, for example `CastVote`.
    pub fn method(&self, path: &str) -> &MethodMetrics {
        let procedure = path.rsplit('/').next().unwrap_or(OTHER);
        self.methods.get(procedure).unwrap_or_else(|| &self.methods[OTHER])
    }
}

impl<S> Layer<S> for GrpcRequests {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, requests: self.clone() }
    }
}

/// A service whose responses are measured.
#[derive(Clone)]
pub struct Measured<S> {
    inner: S,
    requests: GrpcRequests,
}

impl<S, B, R> Service<http::Request<B>> for Measured<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (begun, requests, path) = (Instant::now(), self.requests.clone(), request.uri().path().to_owned());
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            requests.method(&path).record_response(Status::Grpc(grpc_status(response.headers())), begun);
            Ok(response)
        })
    }
}

/// Returns the status code in the head of a response. If the head has no status, messages follow, and the code counts
/// as 0 (`OK`).
fn grpc_status(head: &http::HeaderMap) -> usize {
    let Some(status) = head.get("grpc-status") else { return 0 };
    let code = status.to_str().ok().and_then(|status| status.parse().ok());
    code.filter(|code| *code < GRPC_STATUSES.len()).unwrap_or(2)
}
