//! `ovation up`: all four services in one process.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use backends::Stores;
use clap::Args;
use serde::Serialize;
use service::{
    CancellationToken, Config, Context, Health,
    config::CommonFlags,
    health::Weight,
    program::{self, Outcome},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use votes::{Counter, Door, DoorKind, Partition, StoreError, Tallies, VoteFeed};

use crate::flood;

/// The admin port of a process that runs everything.
const ADMIN_PORT: u16 = 9100;

/// How long leaving waits for the last votes to be counted. They are on the log, so nothing is lost if this is too short.
const COUNT_REST: Duration = Duration::from_secs(3);

/// Run everything in one process: both producers, the consumer and the results
#[derive(Args, Serialize)]
#[command(after_help = "Example:\n  ovation up --demo 500\n  then open http://127.0.0.1:8080/")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    /// Where the REST producer listens [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<String>,
    /// Where the gRPC producer listens [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    /// Where the live page and the results listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<String>,
    /// Where the results listen for gRPC [default: 127.0.0.1:50052]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results_grpc: Option<String>,
    /// Flood the doors with this many votes a second, so that the page moves
    #[arg(long, value_name = "RATE")]
    #[serde(skip)]
    demo: Option<f64>,
}

pub(crate) fn run(args: UpArgs) -> ExitCode {
    let demo = args.demo;
    let config = Config::load(args.common.config.clone(), args, ADMIN_PORT);
    program::main(config, |context| services(context, demo))
}

async fn services(context: Context, demo: Option<f64>) -> Outcome {
    let Context { config, health, shutdown, starting } = context;
    let contests = config.contests()?;
    let stores = Stores::open(&config)?;
    let secret = stores.secret();
    let door = |kind| Door::new(kind, Arc::clone(&contests), secret.clone(), stores.queue());
    stores.watch_queue(&health, Weight::Vital);
    stores.watch_book(&health, Weight::Helpful);
    stores.watch_tallies(&health, Weight::Helpful);

    // The doors and the results leave first, so that what they took can still be counted.
    let mut doors = JoinSet::new();
    let listening = |name: &'static str| {
        let latch = health.latch(name);
        move |_: SocketAddr| drop(latch)
    };
    let grpc = program::listen("grpc", config.grpc).await?;
    let results_grpc = program::listen("results_grpc", config.results_grpc).await?;
    doors.spawn(run_rest(config.rest, door(DoorKind::Rest), shutdown.clone(), listening("rest-producer")));
    doors.spawn(run_grpc(grpc, door(DoorKind::Grpc), health.clone(), shutdown.clone()));
    let sources = results::Sources {
        contests: Arc::clone(&contests),
        tallies: stores.tallies(),
        book: stores.book(),
        feed: stores.feed(),
    };
    doors.spawn(run_results(config.results, results_grpc, sources, shutdown.clone(), listening("results")));

    let counting = CancellationToken::new();
    let counter = Counter::new(stores.book(), stores.tallies());
    let latch = health.latch("consumer");
    let assigned = move || drop(latch);
    let consumer = tokio::spawn(consumer::run(stores.feed(), counter, health.clone(), counting.clone(), assigned));
    drop(starting);

    let greeting = tokio::spawn(greet(config, demo, health, shutdown.clone()));

    let mut outcome = Ok(());
    while let Some(ended) = doors.join_next().await {
        // A service that ends ends all: half a system is no system.
        shutdown.cancel();
        outcome = outcome.and(ended.map_err(Into::into).and_then(|ended| ended));
    }
    greeting.abort();
    stores.queue().flush().await;
    if timeout(COUNT_REST, count_rest(stores.feed(), stores.tallies())).await.is_err() {
        tracing::warn!("left before all votes were counted, they are on the log and will be at the next start");
    }
    counting.cancel();
    outcome.and(consumer.await?.map_err(Into::into))
}

/// Says where everything is as soon as it is there, and floods it if asked to.
async fn greet(config: Config, demo: Option<f64>, health: Health, stop: CancellationToken) {
    health.started().await;
    announce(&config);
    if let Some(rate) = demo {
        flood::demo(config.rest, config.grpc, rate, None, stop).await;
    }
}

async fn run_rest(
    address: SocketAddr,
    door: Door,
    shutdown: CancellationToken,
    listening: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Outcome {
    Ok(rest_producer::run(address, door, shutdown, listening).await?)
}

async fn run_grpc(listener: TcpListener, door: Door, health: Health, shutdown: CancellationToken) -> Outcome {
    Ok(grpc_producer::run(listener, door, health, shutdown).await?)
}

async fn run_results(
    address: SocketAddr,
    grpc: TcpListener,
    sources: results::Sources,
    shutdown: CancellationToken,
    listening: impl FnOnce(SocketAddr) + Send + Sync + 'static,
) -> Outcome {
    Ok(results::run(address, grpc, sources, shutdown, listening).await?)
}

/// Waits until the tallies have all that is on the log now.
pub(crate) async fn count_rest(feed: Arc<dyn VoteFeed>, tallies: Arc<dyn Tallies>) -> Result<(), StoreError> {
    for partition in (0..feed.partitions()).map(Partition) {
        let end = feed.bounds(partition).await?.end;
        let mut seen = 0;
        while tallies.position(partition).await? < end {
            seen = tallies.changed(seen).await?;
        }
    }
    Ok(())
}

fn announce(config: &Config) {
    let Config { rest, grpc, results, results_grpc, admin, data, .. } = config;
    println!(
        "Ovation is running; Ctrl-C stops it.\n\n  \
           live page     http://{results}/\n  \
           REST door     http://{rest}/v1/votes\n  \
           gRPC door     {grpc}\n  \
           gRPC results  {results_grpc}\n  \
           admin         http://{admin}/health\n  \
           data          {}\n\n\
         Vote:  curl -H 'content-type: application/json' -d '{{\"name\":\"Pink Floyd\"}}' http://{rest}/v1/votes\n",
        data.display()
    );
}
