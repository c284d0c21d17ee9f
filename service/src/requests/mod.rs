//! The metrics of every request, over HTTP and gRPC: `ovation_requests_total{server,method,status}`,
//! `ovation_request_seconds{server,method}`, and the sizes of bodies whose length is known.
//!
//! The number of label values is bounded: a method that the server does not have is counted as `other`.
//!
//! | what | file |
//! |---|---|
//! | the metrics of one method | `method` |
//! | requests to a Rocket, as a fairing | `http` |
//! | calls of a gRPC server, as a layer | `grpc` |

mod grpc;
mod http;
mod method;

pub use grpc::{GrpcRequests, Measured};
pub use http::HttpRequests;
pub use method::MethodMetrics;
