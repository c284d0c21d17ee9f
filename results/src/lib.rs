//! The read side of Ovation: live tallies, queries about counted votes and datasets, and the import of files.
//!
//! | part | folder or file |
//! |---|---|
//! | tallies, streams, albums, rates, gRPC, metrics and the live page | `live/` |
//! | queries about single votes and datasets, and the response cache | `query/` |
//! | the import of files as datasets or votes | `import/` |
//! | the list of routes, and the `OpenAPI` document | `openapi.rs` |
//!
//! All three folders use these files:
//!
//! | part | file |
//! |---|---|
//! | the stores that results are read from, and the limits | `sources.rs`, `limits.rs` |
//! | calls to stores, with time-outs | `calls.rs` |
//! | error responses and their documentation | `problems.rs` |
//! | the contest of a request | `contests.rs` |
//! | access control | `access.rs` |
//! | the parameters of a request | `parameters.rs` |

mod access;
mod calls;
mod contests;
mod import;
mod limits;
mod live;
mod openapi;
mod parameters;
mod problems;
mod query;
mod sources;

use std::sync::Arc;

use rocket::{Build, Rocket, routes};
use service::{
    CancellationToken, Config, ConfigError, Context,
    health::Criticality,
    http,
    program::{self, Failure},
    requests::HttpRequests,
    serve::ServeError,
};
use tokio::{net::TcpListener, try_join};
use votes::{Ingest, LogWriter, ProducerKind};

use crate::{
    access::Access,
    contests::ContestNames,
    import::importer::Importer,
    live::{grpc, metrics::tally_metrics, page, stores::LiveStores, watch::Subscriptions},
    query::{reader::Reader, stores::QueryStores},
};
pub use crate::{limits::Limits, sources::Sources};

/// The listeners of the service.
pub struct Listeners {
    /// The listener for HTTP.
    pub http: TcpListener,
    /// The listener for gRPC.
    pub grpc: TcpListener,
}

impl Listeners {
    /// Binds both addresses of the configuration.
    ///
    /// # Errors
    /// If an address can't be bound. The error names the configuration key and the address.
    pub async fn bind(config: &Config) -> Result<Self, ConfigError> {
        let grpc = program::listen("results_grpc", config.results_grpc).await?;
        Ok(Self { http: program::listen("results", config.results).await?, grpc })
    }
}

/// What the service needs to run.
pub struct Dependencies {
    /// The stores that results are read from.
    pub sources: Sources,
    /// The limits of the service.
    pub limits: Limits,
    /// The writer of the vote log. If it is present, it is flushed at shutdown.
    pub log_writer: Option<Arc<dyn LogWriter>>,
}

impl Dependencies {
    /// Opens the stores, and creates the ingest of imported votes. From then on, `/metrics` shows the tallies.
    /// `tallies` is the criticality of the tallies for the process.
    ///
    /// # Errors
    /// If the configuration is invalid, or if a store is not configured as required. A store that can't be reached is
    /// not an error: this function waits for the store.
    pub async fn open(context: &Context, stores: &stores::Stores, tallies: Criticality) -> Result<Self, Failure> {
        let Context { config, metrics, .. } = context;
        let (contests, token) = (config.contests()?, config.read_token()?);
        let secret = stores.secret(&contests)?;
        let (tallies, query_ports, import_ports, log_writer, log_reader) = try_join!(
            stores.tallies(tallies),
            stores.query_ports(Criticality::Optional),
            stores.import_ports(Criticality::Optional),
            stores.log_writer(Criticality::Optional),
            stores.standalone_log_reader(Criticality::Optional)
        )?;
        metrics.add_collector(tally_metrics(Arc::clone(&contests), Arc::clone(&tallies)));
        let ingest = Ingest::new(ProducerKind::Import, Arc::clone(&contests), secret, Arc::clone(&log_writer));
        let sources = Sources { contests, tallies, query_ports, log_reader, import_ports, ingest, token };
        Ok(Self { sources, limits: Limits::of(config), log_writer: Some(log_writer) })
    }
}

/// Serves results over HTTP and gRPC until shutdown. Then ends every stream, and waits for the open requests.
///
/// # Errors
/// If HTTP or gRPC can't be served. Before the error is returned, both servers have ended.
pub async fn run(
    listeners: Listeners,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Dependencies { sources, limits, log_writer } = dependencies;
    let stopping = shutdown.child_token();
    let Sources { contests, tallies, query_ports, log_reader, import_ports, ingest, token } = sources;
    let (datasets, response_cache) = (Arc::clone(&query_ports.datasets), Arc::clone(&query_ports.response_cache));
    let live_stores = Arc::new(LiveStores::new(&contests, tallies, log_reader));
    let query_stores = Arc::new(QueryStores::new(query_ports, limits.read_pool));
    let contests = ContestNames::new(contests);
    let subscriptions = Subscriptions::new(Arc::clone(&live_stores), limits, stopping.clone());
    let reader = Reader::new(Arc::clone(&query_stores), response_cache);
    let importer = Importer::new(datasets, import_ports, ingest);
    tokio::spawn(stopping.clone().run_until_cancelled_owned(importer.clone().run_worker()));
    tokio::spawn(stopping.clone().run_until_cancelled_owned(importer.clone().run_reconciler()));
    tokio::spawn(stopping.clone().run_until_cancelled_owned(reader.clone().cache_popular()));
    let rocket = stage()
        .manage(limits)
        .manage(Access::new(token))
        .manage(contests.clone())
        .manage(Arc::clone(&live_stores))
        .manage(subscriptions.clone())
        .manage(query_stores)
        .manage(reader)
        .manage(importer);
    let http = async {
        let _end_grpc = stopping.clone().drop_guard();
        http::serve("results", rocket, listeners.http, stopping.clone()).await
    };
    let grpc = async {
        let _end_http = stopping.clone().drop_guard();
        grpc::serve(listeners.grpc, contests, live_stores, subscriptions, stopping.clone()).await
    };
    let (http, grpc) = tokio::join!(http, grpc);
    if let Some(log_writer) = log_writer {
        log_writer.flush().await;
    }
    http.and(grpc)
}

/// Returns the server with its routes, without their state.
fn stage() -> Rocket<Build> {
    http::rocket()
        .attach(HttpRequests::new("results"))
        .manage(openapi::document())
        .mount("/", routes![page::index, page::asset])
        .mount("/", openapi::routes())
}
