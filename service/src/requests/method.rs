//! The metrics of one method.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

/// The method of requests whose method the server does not have.
pub(super) const OTHER: &str = "other";

/// The handles of the metrics of one method. They are looked up once, not for each request.
pub struct MethodMetrics {
    server: &'static str,
    name: String,
    seconds: Histogram,
    request: Histogram,
    response: Histogram,
    statuses: Mutex<BTreeMap<Status, Counter>>,
}

/// The status of a response.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Http(u16),
    /// An index into [`GRPC_STATUSES`].
    Grpc(usize),
}

impl MethodMetrics {
    /// Creates the metrics of a method. `server` is `rest`, `grpc`, `forward` or `results`.
    pub fn new(server: &'static str, name: &str) -> Self {
        describe_counter!("ovation_requests_total", "Requests answered, by server, method and status");
        describe_histogram!(
            "ovation_request_seconds",
            Unit::Seconds,
            "Time from a request's head to its response's head"
        );
        describe_histogram!("ovation_request_bytes", Unit::Bytes, "Length of request bodies, if it is known");
        describe_histogram!("ovation_response_bytes", Unit::Bytes, "Length of response bodies, if it is known");
        let labels = [("server", server.to_owned()), ("method", name.to_owned())];
        Self {
            server,
            name: name.to_owned(),
            seconds: histogram!("ovation_request_seconds", &labels),
            request: histogram!("ovation_request_bytes", &labels),
            response: histogram!("ovation_response_bytes", &labels),
            statuses: Mutex::default(),
        }
    }

    pub(super) fn record_response(&self, status: Status, begun: Instant) {
        self.seconds.record(begun.elapsed());
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = statuses.entry(status).or_insert_with(|| {
            let status = match status {
                Status::Http(code) => code.to_string(),
                Status::Grpc(code) => GRPC_STATUSES[code].to_owned(),
            };
            counter!("ovation_requests_total", "server" => self.server, "method" => self.name.clone(), "status" => status)
        });
        counter.increment(1);
    }

    /// Records the lengths of the bodies of a request and of its response, in bytes. `None` is not recorded.
    pub fn record_sizes(&self, request: Option<usize>, response: Option<usize>) {
        for (histogram, bytes) in [(&self.request, request), (&self.response, response)] {
            if let Some(bytes) = bytes {
                histogram.record(bytes as f64);
            }
        }
    }
}

/// The names of gRPC's status codes, by number: <https://grpc.io/docs/guides/status-codes/>.
pub(super) const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
