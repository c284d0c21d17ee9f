//! `ovation up`: runs all four services in one process.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use load::flood;
use serde::Serialize;
use service::{
    CancellationToken, Config, Context,
    config::{CommonFlags, ProxyFlags, ReadFlags},
    health::{Criticality, Latch},
    program::{self, ProgramResult},
};
use stores::Stores;
use tokio::{
    task::{JoinError, JoinHandle, JoinSet},
    time::timeout,
    try_join,
};
use votes::Partition;

/// The default admin port of `ovation up`.
const ADMIN_PORT: u16 = 9100;

/// The longest time that the shutdown waits for the last votes to be counted. Votes that are not counted by then are on
/// the log, so they are counted after the next start.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// Run everything in one process: both producers, the consumer and the results
#[derive(Args, Serialize)]
#[command(after_help = "Example:\n  ovation up --demo 500\n  then open http://127.0.0.1:8080/")]
pub(crate) struct UpArgs {
    #[command(flatten)]
    #[serde(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    proxy: ProxyFlags,
    #[command(flatten)]
    #[serde(flatten)]
    read: ReadFlags,
    /// The address of the REST producer [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<String>,
    /// The address of the gRPC producer [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    /// The address of the live page and the results [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<String>,
    /// The address of the results over gRPC [default: 127.0.0.1:50052]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    results_grpc: Option<String>,
    /// Cast this many votes per second through both producers, so that the live page shows votes
    #[arg(long, value_name = "RATE")]
    #[serde(skip)]
    demo: Option<f64>,
}

pub(crate) fn run(args: UpArgs) -> ExitCode {
    let demo = args.demo;
    let config = Config::load(args.common.config.clone(), args, ADMIN_PORT);
    program::main(config, |context, starting| services(context, starting, demo))
}

async fn services(context: Context, starting: Latch, demo: Option<f64>) -> ProgramResult {
    // An invalid configuration ends the process before any service runs. The token is checked first, because opening
    // the stores may create a folder.
    context.config.read_token()?;
    let stores = Stores::open(&context.config, &context.health)?;
    let contests = context.config.contests()?;
    stores.secret(&contests)?;
    let system = System { context, stores };
    let latch = |name| system.context.health.add_latch(name);

    // The producers and the results stop first. Then the consumer counts the last votes that the producers accepted.
    let mut producers_and_results = JoinSet::new();
    producers_and_results.spawn(system.clone().rest(latch("rest-producer")));
    producers_and_results.spawn(system.clone().grpc(latch("grpc-producer")));
    producers_and_results.spawn(system.clone().results(latch("results")));
    let stop_counting = CancellationToken::new();
    let mut consumer = tokio::spawn(system.clone().consumer(latch("consumer"), stop_counting.clone()));
    drop(starting);
    let announcement = tokio::spawn(announce_when_ready(system.context.clone(), demo));

    let (outcome, consumer_outcome) =
        wait_for_services(&mut producers_and_results, &mut consumer, &system.context.shutdown).await;
    announcement.abort();
    if let Some(consumer_outcome) = consumer_outcome {
        return outcome.and(consumer_outcome);
    }
    if !matches!(timeout(CATCH_UP_TIMEOUT, system.wait_until_counted()).await, Ok(Ok(()))) {
        tracing::warn!(
            "stopping before all votes are counted; they are on the log and are counted after the next start"
        );
    }
    stop_counting.cancel();
    outcome.and(consumer.await?)
}

/// Waits until the producers and the results have ended. Returns their outcome, and the outcome of the consumer if it has
/// ended too. If one of these services ends, the whole system must end, because it is not useful without that service. So
/// this cancels `shutdown`.
async fn wait_for_services(
    producers_and_results: &mut JoinSet<ProgramResult>,
    consumer: &mut JoinHandle<ProgramResult>,
    shutdown: &CancellationToken,
) -> (ProgramResult, Option<ProgramResult>) {
    let flatten = |ended: Result<ProgramResult, JoinError>| ended.map_err(Into::into).and_then(|outcome| outcome);
    let (mut outcome, mut consumer_outcome) = (Ok(()), None);
    loop {
        tokio::select! {
            ended = producers_and_results.join_next() => match ended {
                Some(ended) => outcome = outcome.and(flatten(ended)),
                None => return (outcome, consumer_outcome),
            },
            ended = &mut *consumer, if consumer_outcome.is_none() => consumer_outcome = Some(flatten(ended)),
        }
        shutdown.cancel();
    }
}

/// The state that the four services share. Each service opens its own stores, so that it does not wait for a store that
/// it does not need.
#[derive(Clone)]
struct System {
    context: Context,
    stores: Stores,
}

impl System {
    async fn rest(self, starting: Latch) -> ProgramResult {
        let Self { context, stores } = &self;
        let dependencies = rest_producer::Dependencies::open(context, stores);
        let listener = program::listen("rest", context.config.rest);
        program::serve(dependencies, listener, starting, rest_producer::run, context.shutdown.clone()).await
    }

    async fn grpc(self, starting: Latch) -> ProgramResult {
        let Self { context, stores } = &self;
        let dependencies = grpc_producer::Dependencies::open(context, stores);
        let listener = program::listen("grpc", context.config.grpc);
        program::serve(dependencies, listener, starting, grpc_producer::run, context.shutdown.clone()).await
    }

    async fn results(self, starting: Latch) -> ProgramResult {
        let Self { context, stores } = &self;
        let dependencies = results::Dependencies::open(context, stores, Criticality::Optional);
        let listeners = results::Listeners::bind(&context.config);
        program::serve(dependencies, listeners, starting, results::run, context.shutdown.clone()).await
    }

    /// Counts until the other services have stopped and their votes are counted.
    async fn consumer(self, starting: Latch, shutdown: CancellationToken) -> ProgramResult {
        let Self { context, stores } = &self;
        let dependencies = consumer::Dependencies::open(context, stores);
        let listener = consumer::listen(stores);
        program::serve(dependencies, listener, starting, consumer::run, shutdown).await
    }

    /// Waits until the tallies have all records that the log has now.
    async fn wait_until_counted(&self) -> ProgramResult {
        let (log_reader, tallies) = try_join!(
            self.stores.standalone_log_reader(Criticality::Optional),
            self.stores.tallies(Criticality::Optional)
        )?;
        for partition in (0..log_reader.partitions()).map(Partition) {
            let end = log_reader.bounds(partition).await?.end;
            let mut version = 0;
            while tallies.position(partition).await?.offset < end {
                version = tallies.changed(version).await?;
            }
        }
        Ok(())
    }
}

/// Prints the addresses when the system is ready, and runs the flood of `--demo`.
async fn announce_when_ready(context: Context, demo: Option<f64>) {
    let Context { config, health, shutdown, .. } = context;
    health.wait_until_started().await;
    announce(&config);
    if let Some(rate) = demo {
        flood::demo(config.rest, config.grpc, rate, None, shutdown).await;
    }
}

fn announce(config: &Config) {
    let Config { rest, grpc, results, results_grpc, admin, data, vote_log, tallies, ledger, .. } = config;
    let stores = if vote_log == "embedded:" {
        format!("data           {}", data.display())
    } else {
        let without_password =
            |url: &str| url.rsplit_once('@').map_or(url.to_owned(), |(_, host)| format!("...@{host}"));
        format!(
            "vote log       {}\n  tallies        {}\n  ledger         {}",
            without_password(vote_log),
            without_password(tallies),
            without_password(ledger)
        )
    };
    println!(
        "Ovation is running; Ctrl-C stops it.\n\n  \
           live page      http://{results}/\n  \
           REST producer  http://{rest}/v1/votes\n  \
           gRPC producer  {grpc}\n  \
           gRPC results   {results_grpc}\n  \
           admin          http://{admin}/health\n  \
           {stores}\n\n\
         Vote:  curl -H 'content-type: application/json' -d '{{\"name\":\"Pink Floyd\"}}' http://{rest}/v1/votes\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_consumer_that_ends_with_an_error_ends_the_system() {
        let shutdown = CancellationToken::new();
        let mut services = JoinSet::new();
        for _ in 0..3 {
            let shutdown = shutdown.clone();
            services.spawn(async move {
                shutdown.cancelled().await;
                Ok(())
            });
        }
        let mut consumer = tokio::spawn(async { Err("no ledger".into()) });
        let (outcome, consumer_outcome) = wait_for_services(&mut services, &mut consumer, &shutdown).await;
        assert!(outcome.is_ok());
        assert_eq!(consumer_outcome.unwrap().unwrap_err().to_string(), "no ledger");
    }
}
