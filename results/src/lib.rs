//! The read side of Ovation: how contests stand, live, every vote that was counted, and datasets that are imported.
//!
//! | idea | file |
//! |---|---|
//! | where results come from, and what happens when a store does not answer | `stores.rs` |
//! | many askers, one reading | `shared.rs` |
//! | who follows a contest, and what they hear | `watch.rs` |
//! | the standing of a contest | `tally.rs`, and as a stream of events `stream.rs` |
//! | leading albums, votes by time | `albums.rs`, `rates.rs` |
//! | the votes themselves, and datasets, as people ask for them | `book.rs`, `datasets.rs` |
//! | how a question is asked, and the forms of its answer | `question.rs`, `answer.rs` |
//! | the three ways to an answer, and what is kept of them | `reading.rs`, `popularity.rs` |
//! | files that become datasets or votes | `import/` |
//! | who may ask | `access.rs` |
//! | up to when nothing is still to be counted | `settled.rs` |
//! | a request's query, read strictly | `parameters.rs` |
//! | the standings as metrics | `metrics.rs` |
//! | `ovation.v1.ResultsService` | `grpc.rs` |
//! | the live page | `page.rs`, `assets/` |
//! | the description of the HTTP side | `openapi.rs` |

mod access;
mod albums;
mod answer;
mod book;
mod datasets;
mod grpc;
mod import;
mod metrics;
mod openapi;
mod page;
mod parameters;
mod popularity;
mod question;
mod rates;
mod reading;
mod settled;
mod shared;
mod stores;
mod stream;
mod tally;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rocket::{Build, Rocket, Route, routes};
use service::{
    CancellationToken, Config,
    http::{self, ServeError},
    requests::HttpRequests,
};
use tokio::net::TcpListener;

use crate::{access::Access, import::Importer, reading::Reader, stores::Stores, watch::Watch};
pub use crate::{metrics::standings, stores::Sources};

/// How much is served, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most streams at a time, over both protocols.
    pub streams: usize,
    /// How often a stream of events says that it is current.
    pub heartbeat: Duration,
    /// How long stores may fail before those who follow a contest are told: a connection that is lost and made again is
    /// no outage.
    pub patience: Duration,
    /// How many questions may be in the archive at a time.
    pub read_pool: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 1_000, heartbeat: Duration::from_secs(5), patience: Duration::from_secs(2), read_pool: 2 }
    }
}

impl Limits {
    /// What the configuration says of them.
    pub fn of(config: &Config) -> Self {
        Self { read_pool: usize::try_from(config.read_pool.get()).unwrap_or(usize::MAX), ..Self::default() }
    }
}

/// Serves results over HTTP, on `address`, and over gRPC until shutdown; then ends every stream and drains.
/// `bound` is told the address of HTTP, with its real port.
///
/// # Errors
/// If one of the two can't serve; then both have ended.
pub async fn run(
    address: SocketAddr,
    grpc: TcpListener,
    sources: Sources,
    shutdown: CancellationToken,
    bound: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Result<(), ServeError> {
    run_with(Limits::default(), address, grpc, sources, shutdown, bound).await
}

/// [`run`], with other limits.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    limits: Limits,
    address: SocketAddr,
    grpc: TcpListener,
    sources: Sources,
    shutdown: CancellationToken,
    bound: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Result<(), ServeError> {
    let leaving = shutdown.child_token();
    let (importing, door) = (sources.importing.clone(), sources.door.clone());
    let datasets = Arc::clone(&sources.reading.datasets);
    let (access, answers) = (Access::new(sources.token.clone()), Arc::clone(&sources.reading.answers));
    let stores = Arc::new(Stores::new(sources, limits.read_pool));
    let watch = Watch::new(Arc::clone(&stores), limits, leaving.clone());
    let reader = Reader::new(Arc::clone(&stores), answers);
    let importer = Importer::new(datasets, importing, door);
    tokio::spawn(leaving.clone().run_until_cancelled_owned(importer.clone().work()));
    tokio::spawn(leaving.clone().run_until_cancelled_owned(importer.clone().tend()));
    tokio::spawn(leaving.clone().run_until_cancelled_owned(reader.clone().keep_popular()));
    let rocket = stage(limits, Arc::clone(&stores), watch.clone()).manage(access).manage(reader).manage(importer);
    let http = async {
        let _end_grpc = leaving.clone().drop_guard();
        http::serve("results", rocket, address, leaving.clone(), bound).await
    };
    let grpc = async {
        let _end_http = leaving.clone().drop_guard();
        grpc::serve(grpc, stores, watch, leaving.clone()).await
    };
    let (http, grpc) = tokio::join!(http, grpc);
    http.and(grpc)
}

fn stage(limits: Limits, stores: Arc<Stores>, watch: Watch) -> Rocket<Build> {
    http::rocket().attach(HttpRequests::new("results")).manage(limits).manage(stores).manage(watch).mount("/", routes())
}

fn routes() -> Vec<Route> {
    routes![
        page::index,
        page::asset,
        tally::contests,
        tally::tally,
        stream::tally_stream,
        albums::albums,
        rates::rates,
        rates::settled_rates,
        book::find_votes,
        datasets::datasets,
        datasets::find_rows,
        reading::invalidate,
        import::routes::import_dataset,
        import::routes::remove_dataset,
        import::routes::import_votes,
        import::routes::import,
        openapi::document,
    ]
}
