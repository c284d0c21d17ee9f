//! What is measured of every request, over HTTP and gRPC alike: `ovation_requests_total{door,method,status}`,
//! `ovation_request_seconds{door,method}`, and the sizes of bodies where they are known beforehand.
//!
//! The labels are bounded: a method that we do not serve is `other`.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::{Context, Poll},
    time::Instant,
};

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use rocket::{
    Data, Request, Response,
    fairing::{Fairing, Info, Kind},
};
use tonic::codegen::http;
use tower::{Layer, Service};

/// The label of what is not served here.
const OTHER: &str = "other";

/// The handles of one method, looked up once.
pub struct Method {
    door: &'static str,
    name: String,
    seconds: Histogram,
    request: Histogram,
    response: Histogram,
    statuses: Mutex<BTreeMap<Status, Counter>>,
}

/// An answer's status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Http(u16),
    Grpc(usize),
}

impl Method {
    /// The meters of a method; `door` is `rest`, `grpc`, `forward` or `results`.
    pub fn new(door: &'static str, name: &str) -> Self {
        describe_counter!("ovation_requests_total", "Requests answered, by door, method and status");
        describe_histogram!("ovation_request_seconds", Unit::Seconds, "From a request's head to the answer's head");
        describe_histogram!("ovation_request_bytes", Unit::Bytes, "Length of requests' bodies, where it is known");
        describe_histogram!("ovation_response_bytes", Unit::Bytes, "Length of answers' bodies, where it is known");
        let labels = [("door", door.to_owned()), ("method", name.to_owned())];
        Self {
            door,
            name: name.to_owned(),
            seconds: histogram!("ovation_request_seconds", &labels),
            request: histogram!("ovation_request_bytes", &labels),
            response: histogram!("ovation_response_bytes", &labels),
            statuses: Mutex::default(),
        }
    }

    fn answered(&self, status: Status, begun: Instant) {
        self.seconds.record(begun.elapsed());
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = statuses.entry(status).or_insert_with(|| {
            let status = match status {
                Status::Http(code) => code.to_string(),
                Status::Grpc(code) => GRPC_STATUSES[code].to_owned(),
            };
            counter!("ovation_requests_total", "door" => self.door, "method" => self.name.clone(), "status" => status)
        });
        counter.increment(1);
    }

    /// Notes the bytes of a request's body and of its answer's.
    pub fn sized(&self, request: Option<usize>, response: Option<usize>) {
        for (histogram, bytes) in [(&self.request, request), (&self.response, response)] {
            if let Some(bytes) = bytes {
                histogram.record(bytes as f64);
            }
        }
    }
}

/// Measures what a Rocket answers. A method is a route, like `POST /v1/votes`.
pub struct HttpRequests {
    door: &'static str,
    /// By the name of the route's handler.
    methods: RwLock<HashMap<String, Arc<Method>>>,
}

impl HttpRequests {
    /// For the server that is called so.
    pub fn new(door: &'static str) -> Self {
        Self { door, methods: RwLock::default() }
    }

    fn method(&self, request: &Request<'_>) -> Arc<Method> {
        let route = request.route();
        let handler = route.and_then(|route| route.name.as_deref()).unwrap_or(OTHER);
        let known = self.methods.read().unwrap_or_else(PoisonError::into_inner).get(handler).cloned();
        known.unwrap_or_else(|| {
            let name = route.map_or_else(|| OTHER.to_owned(), |route| format!("{} {}", route.method, route.uri.path()));
            let method = Arc::new(Method::new(self.door, &name));
            self.methods
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(handler.to_owned())
                .or_insert(method)
                .clone()
        })
    }
}

/// When a request's head was read.
struct Begun(Instant);

#[rocket::async_trait]
impl Fairing for HttpRequests {
    fn info(&self) -> Info {
        Info { name: "requests", kind: Kind::Request | Kind::Response }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        request.local_cache(|| Begun(Instant::now()));
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let Begun(begun) = request.local_cache(|| Begun(Instant::now()));
        let method = self.method(request);
        method.answered(Status::Http(response.status().code), *begun);
        let length = request.headers().get_one("Content-Length").and_then(|length| length.parse().ok());
        method.sized(length, response.body_mut().size().await);
    }
}

/// Measures what a gRPC server answers, as a layer around its services. A method is a procedure, like `CastVote`; a stream is
/// answered when its first head is.
#[derive(Clone)]
pub struct GrpcRequests {
    methods: Arc<HashMap<&'static str, Method>>,
}

impl GrpcRequests {
    /// For a server with these procedures.
    pub fn new(door: &'static str, procedures: &[&'static str]) -> Self {
        let names = procedures.iter().copied().chain([OTHER]);
        Self { methods: Arc::new(names.map(|name| (name, Method::new(door, name))).collect()) }
    }

    /// The meters of one of its procedures.
    pub fn method(&self, path: &str) -> &Method {
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

/// A service whose answers are measured.
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
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            requests.method(&path).answered(Status::Grpc(grpc_status(answer.headers())), begun);
            Ok(answer)
        })
    }
}

/// The names of gRPC's status codes, by number: <https://grpc.io/docs/guides/status-codes/>.
const GRPC_STATUSES: [&str; 17] = [
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

/// A refusal stands in the head of the answer; where there is none, messages follow.
fn grpc_status(head: &http::HeaderMap) -> usize {
    let Some(status) = head.get("grpc-status") else { return 0 };
    let code = status.to_str().ok().and_then(|status| status.parse().ok());
    code.filter(|code| *code < GRPC_STATUSES.len()).unwrap_or(2)
}
