//! Measures the requests to a Rocket.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use rocket::{
    Data, Request, Response,
    fairing::{Fairing, Info, Kind},
};

use super::method::{MethodMetrics, OTHER, Status};

/// A fairing that measures the responses of a Rocket. A method is a route, for example `POST /v1/votes`.
pub struct HttpRequests {
    server: &'static str,
    /// The metrics of each route, by the name of the route's handler.
    methods: RwLock<HashMap<String, Arc<MethodMetrics>>>,
}

impl HttpRequests {
    /// Creates the fairing for the server of this name.
    pub fn new(server: &'static str) -> Self {
        Self { server, methods: RwLock::default() }
    }

    fn method(&self, request: &Request<'_>) -> Arc<MethodMetrics> {
        let route = request.route();
        let handler = route.and_then(|route| route.name.as_deref()).unwrap_or(OTHER);
        let known = self.methods.read().unwrap_or_else(PoisonError::into_inner).get(handler).cloned();
        known.unwrap_or_else(|| {
            let name = route.map_or_else(|| OTHER.to_owned(), |route| format!("{} {}", route.method, route.uri.path()));
            let method = Arc::new(MethodMetrics::new(self.server, &name));
            self.methods
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(handler.to_owned())
                .or_insert(method)
                .clone()
        })
    }
}

/// The time at which a request's head was read.
struct RequestStart(Instant);

#[rocket::async_trait]
impl Fairing for HttpRequests {
    fn info(&self) -> Info {
        Info { name: "requests", kind: Kind::Request | Kind::Response }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        request.local_cache(|| RequestStart(Instant::now()));
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let RequestStart(begun) = request.local_cache(|| RequestStart(Instant::now()));
        let method = self.method(request);
        method.record_response(Status::Http(response.status().code), *begun);
        let length = request.headers().get_one("Content-Length").and_then(|length| length.parse().ok());
        method.record_sizes(length, response.body_mut().size().await);
    }
}
