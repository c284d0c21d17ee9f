//! `ovation up`: all four services in one process.

use std::{process::ExitCode, sync::Arc, time::Duration};

use backends::Stores;
use clap::Args;
use serde::Serialize;
use service::{
    CancellationToken, Config, Context, Health,
    config::{CommonFlags, DoorFlags, ReadFlags},
    door::MeteredDoor,
    health::{Latch, Weight},
    program::{self, Failure, Outcome},
    telemetry::Metrics,
    token::ReadToken,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout, try_join};
use votes::{Contests, Door, DoorKind, Partition, VoteQueue, VoterSecret};

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
    #[command(flatten)]
    #[serde(flatten)]
    before: DoorFlags,
    #[command(flatten)]
    #[serde(flatten)]
    read: ReadFlags,
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
    let Context { config, health, metrics, shutdown, starting } = context;
    let (contests, token) = (config.contests()?, config.read_token()?);
    let stores = Stores::open(&config, &health)?;
    let secret = stores.secret(&contests)?;
    let system = System { config, contests, token, stores, secret, health, metrics, shutdown };
    let grpc = program::listen("grpc", system.config.grpc).await?;
    let results_grpc = program::listen("results_grpc", system.config.results_grpc).await?;

    // The doors and the results leave first, so that what they took can still be counted.
    let mut doors = JoinSet::new();
    doors.spawn(system.clone().rest(system.health.latch("rest-producer")));
    doors.spawn(system.clone().grpc(grpc, system.health.latch("grpc-producer")));
    doors.spawn(system.clone().results(results_grpc, system.health.latch("results")));
    let counting = CancellationToken::new();
    let consumer = tokio::spawn(system.clone().consumer(counting.clone(), system.health.latch("consumer")));
    drop(starting);
    let greeting = tokio::spawn(greet(system.clone(), demo));

    let mut outcome = Ok(());
    while let Some(ended) = doors.join_next().await {
        // A service that ends ends all: half a system is no system.
        system.shutdown.cancel();
        outcome = outcome.and(ended.map_err(Into::into).and_then(|ended| ended));
    }
    greeting.abort();
    if !matches!(timeout(COUNT_REST, system.count_rest()).await, Ok(Ok(()))) {
        tracing::warn!("left before all votes were counted, they are on the log and will be at the next start");
    }
    counting.cancel();
    outcome.and(consumer.await?)
}

/// What the four services share. Each opens its own stores, so that none waits for a store it does not need.
#[derive(Clone)]
struct System {
    config: Config,
    contests: Arc<Contests>,
    token: Option<ReadToken>,
    stores: Stores,
    secret: Option<VoterSecret>,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl System {
    /// What `open` opens, or `None` if the process has to leave before it is open.
    async fn opened<T>(&self, open: impl Future<Output = Result<T, Failure>>) -> Result<Option<T>, Failure> {
        self.shutdown.run_until_cancelled(open).await.transpose()
    }

    fn door(&self, kind: DoorKind, queue: &Arc<dyn VoteQueue>) -> MeteredDoor {
        let door = Door::new(kind, Arc::clone(&self.contests), self.secret.clone(), Arc::clone(queue));
        MeteredDoor::new(door, self.config.trusted_proxies.clone())
    }

    async fn rest(self, latch: Latch) -> Outcome {
        let Some(queue) = self.opened(self.stores.queue(Weight::Vital)).await? else { return Ok(()) };
        let door = self.door(DoorKind::Rest, &queue);
        let outcome = rest_producer::run(self.config.rest, door, self.shutdown, move |_| drop(latch)).await;
        queue.flush().await;
        Ok(outcome?)
    }

    async fn grpc(self, listener: TcpListener, latch: Latch) -> Outcome {
        let Some(queue) = self.opened(self.stores.queue(Weight::Vital)).await? else { return Ok(()) };
        let door = self.door(DoorKind::Grpc, &queue);
        drop(latch);
        let outcome = grpc_producer::run(listener, door, self.health, self.shutdown).await;
        queue.flush().await;
        Ok(outcome?)
    }

    async fn results(self, grpc: TcpListener, latch: Latch) -> Outcome {
        let open = async {
            let (stores, weight) = (&self.stores, Weight::Helpful);
            try_join!(
                stores.tallies(weight),
                stores.reading(weight),
                stores.importing(weight),
                stores.queue(weight),
                stores.reader(weight)
            )
        };
        let Some((tallies, reading, importing, queue, feed)) = self.opened(open).await? else { return Ok(()) };
        self.metrics.collect(results::standings(Arc::clone(&self.contests), Arc::clone(&tallies)));
        let door = Door::new(DoorKind::Import, Arc::clone(&self.contests), self.secret, Arc::clone(&queue));
        let sources =
            results::Sources { contests: self.contests, tallies, reading, feed, importing, door, token: self.token };
        let limits = results::Limits::of(&self.config);
        let address = self.config.results;
        let outcome = results::run_with(limits, address, grpc, sources, self.shutdown, move |_| drop(latch)).await;
        queue.flush().await;
        Ok(outcome?)
    }

    async fn consumer(self, leave: CancellationToken, latch: Latch) -> Outcome {
        let open = consumer::open(&self.config, &self.stores);
        let Some((feed, counter, keeping)) = self.opened(open).await? else { return Ok(()) };
        Ok(consumer::run(feed, counter, keeping, self.health, leave, move || drop(latch)).await?)
    }

    /// Waits until the tallies have all that is on the log now.
    async fn count_rest(&self) -> Outcome {
        let (feed, tallies) = try_join!(self.stores.reader(Weight::Helpful), self.stores.tallies(Weight::Helpful))?;
        for partition in (0..feed.partitions()).map(Partition) {
            let end = feed.bounds(partition).await?.end;
            let mut seen = 0;
            while tallies.position(partition).await? < end {
                seen = tallies.changed(seen).await?;
            }
        }
        Ok(())
    }
}

/// Says where everything is as soon as it is there, and floods it if asked to.
async fn greet(system: System, demo: Option<f64>) {
    let System { config, health, shutdown, .. } = system;
    health.started().await;
    announce(&config);
    if let Some(rate) = demo {
        flood::demo(config.rest, config.grpc, rate, None, shutdown).await;
    }
}

fn announce(config: &Config) {
    let Config { rest, grpc, results, results_grpc, admin, data, queue, tally, book, .. } = config;
    let stores = if queue == "embedded:" {
        format!("data          {}", data.display())
    } else {
        // Without passwords.
        let shown = |url: &str| url.rsplit_once('@').map_or(url.to_owned(), |(_, place)| format!("...@{place}"));
        format!("vote log      {}\n  tallies       {}\n  vote book     {}", shown(queue), shown(tally), shown(book))
    };
    println!(
        "Ovation is running; Ctrl-C stops it.\n\n  \
           live page     http://{results}/\n  \
           REST door     http://{rest}/v1/votes\n  \
           gRPC door     {grpc}\n  \
           gRPC results  {results_grpc}\n  \
           admin         http://{admin}/health\n  \
           {stores}\n\n\
         Vote:  curl -H 'content-type: application/json' -d '{{\"name\":\"Pink Floyd\"}}' http://{rest}/v1/votes\n"
    );
}
