//! The REST producer: receives votes over HTTP, and responds to each when it is durable on the vote log.
//!
//! | what | file |
//! |---|---|
//! | `GET /`: a list of the routes | `welcome` |
//! | `POST /v1/votes` | `single` |
//! | `POST /v1/votes/batch` | `batch` |
//! | the headers of both routes for votes | `headers` |
//! | reading a body, with limits on its size and time | `body` |
//! | splitting a batch into its votes | `split` |
//! | writing receipts as JSON | `receipt` |
//! | forwarding votes to the gRPC producer, instead of publishing them on the log | `forward` |
//! | the problems that the routes return, for `OpenAPI` | `refusals` |
//! | `GET /openapi.json`, generated from the routes and types | `openapi` |
//!
//! This crate does not validate the content of votes: [`votes::Ingest`] does.

mod batch;
mod body;
mod forward;
mod headers;
mod openapi;
mod receipt;
mod refusals;
mod single;
mod split;
mod welcome;

use std::sync::Arc;

pub use body::BodyTimeouts;
pub use forward::Forwarder;
use rocket::{
    Build, Rocket, routes,
    shield::{NoSniff, Shield},
};
use service::{
    CancellationToken, Context, config::GrpcEndpoint, health::Criticality, http, ingest::MeteredIngest,
    program::Failure, requests::HttpRequests, serve::ServeError,
};
use stores::Stores;
use tokio::net::TcpListener;
use votes::{Ingest, LogWriter, ProducerKind};

/// The dependencies of the service.
pub struct Dependencies {
    /// Submits votes to the log, or to the gRPC producer.
    pub ingest: MeteredIngest,
    /// How long request bodies may take to arrive.
    pub timeouts: BodyTimeouts,
    /// The vote log, if the producer has to flush it at the end.
    pub log_writer: Option<Arc<dyn LogWriter>>,
}

impl Dependencies {
    /// Opens the dependencies of a producer that publishes votes on the log: the contests, the secret and the vote log.
    ///
    /// # Errors
    /// If the configuration is invalid, or the log does not have the required properties. If the log can't be reached,
    /// this waits until it can.
    pub async fn open(context: &Context, stores: &Stores) -> Result<Self, Failure> {
        let contests = context.config.contests()?;
        let secret = stores.secret(&contests)?;
        let log_writer = stores.log_writer(Criticality::Required).await?;
        let ingest = Ingest::new(ProducerKind::Rest, contests, secret, Arc::clone(&log_writer));
        Ok(Self { log_writer: Some(log_writer), ..Self::with_ingest(ingest, context) })
    }

    /// Creates the dependencies of a producer that forwards votes to a gRPC producer. This producer needs no contests,
    /// no secret and no stores, because the gRPC producer has them.
    ///
    /// # Errors
    /// If the URL is invalid.
    ///
    /// # Panics
    /// If this is called outside of a Tokio runtime.
    pub fn forwarding(to: &GrpcEndpoint, context: &Context) -> Result<Self, Failure> {
        let forwarder = Forwarder::start(to, context.config.max_queued_votes, &context.health)?;
        Ok(Self::with_ingest(Ingest::forwarding(ProducerKind::Grpc, forwarder), context))
    }

    fn with_ingest(ingest: Ingest, context: &Context) -> Self {
        let ingest = MeteredIngest::new(ingest, context.config.trusted_proxies.clone());
        Self { ingest, timeouts: BodyTimeouts::default(), log_writer: None }
    }
}

/// Serves the producer until shutdown, then waits for open requests to end, for a limited time.
///
/// # Errors
/// If the producer can't be served.
pub async fn run(
    listener: TcpListener,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Dependencies { ingest, timeouts, log_writer } = dependencies;
    let outcome = http::serve("rest", stage(ingest, timeouts), listener, shutdown).await;
    if let Some(log_writer) = log_writer {
        log_writer.flush().await;
    }
    outcome
}

fn stage(ingest: MeteredIngest, timeouts: BodyTimeouts) -> Rocket<Build> {
    // Of Rocket's security headers, only X-Content-Type-Options matters for JSON. Each header costs time in every
    // response.
    let shield = Shield::new().enable(NoSniff::default());
    // A forwarded vote passes two producers, so the time of its request must not be counted as the latency of one.
    let name = if ingest.is_forwarding() { "forward" } else { "rest" };
    http::rocket()
        .attach(shield)
        .attach(HttpRequests::new(name))
        .manage(ingest)
        .manage(timeouts)
        .manage(openapi::document())
        .mount("/", routes![welcome::welcome, single::cast_vote, batch::cast_votes, openapi::openapi])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use service::client_ip::TrustedProxies;
    use utoipa::OpenApi;
    use votes::fake::FakeLog;

    use super::*;

    #[tokio::test]
    async fn every_route_is_documented_and_every_documented_path_is_a_route() {
        let ingest = Ingest::new(ProducerKind::Rest, Arc::default(), None, FakeLog::new());
        let ingest = MeteredIngest::new(ingest, TrustedProxies::default());
        let rocket = stage(ingest, BodyTimeouts::default());
        let routes: BTreeSet<_> =
            rocket.routes().map(|route| format!("{} {}", route.method, route.uri.path())).collect();
        let paths = openapi::RestProducer::openapi().paths.paths;
        let documented = paths.iter().flat_map(|(path, item)| {
            let of = |method, is_there: bool| is_there.then(|| format!("{method} {path}"));
            let others = [&item.put, &item.delete, &item.patch, &item.head, &item.options, &item.trace];
            assert!(others.iter().all(|operation| operation.is_none()));
            [of("GET", item.get.is_some()), of("POST", item.post.is_some())].into_iter().flatten()
        });
        assert_eq!(routes, documented.collect());
    }
}
