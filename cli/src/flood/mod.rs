//! `ovation flood`: casts votes at a fixed rate, over any door, and measures the acknowledgements.
//!
//! # A vote's way
//!
//! 1. The [`schedule`] says when each vote is due and which worker's turn it is.
//! 2. The [`worker`] draws it from the [`votes`] and casts it over [`rest`], [`rest_batch`] or [`grpc`];
//!    [`grpc_stream`] has a worker of its own kind. What failed may be sent again with the same id.
//! 3. The last answer goes into the worker's [`ledger`], and if it is an acknowledgement into the [`receipts`].
//! 4. The ledgers are merged into the [`report`].
//!
//! What is in flight is bounded, so memory is; a vote whose turn comes late keeps its due time, so that waiting for a
//! slow server counts as latency.

mod args;
mod backoff;
mod grpc;
mod grpc_stream;
pub(crate) mod http;
mod ledger;
mod progress;
mod receipts;
mod report;
mod rest;
mod rest_batch;
mod schedule;
#[cfg(test)]
mod tests;
mod votes;
pub(crate) mod wire;
mod worker;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use ::votes::ContestId;
use futures::future::join_all;
use hyper::Uri;
use service::program::EXIT_USAGE;
use tokio::{
    join, runtime, select,
    task::{JoinSet, spawn_blocking},
    time::interval,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    args::{FloodArgs, Protocol, Rate, check_url},
    report::Report,
    votes::BUILT_IN as BUILT_IN_BANDS,
};
use self::{
    args::{Plan, Voters},
    grpc::Grpc,
    grpc_stream::Pipeline,
    ledger::{Ledger, Live},
    receipts::Receipts,
    rest::Rest,
    rest_batch::RestBatch,
    schedule::Schedule,
    votes::{Bands, Draw},
    worker::{Caster, Worker},
};

/// Runs the flood, and prints what it found. `stop` ends it early: votes in flight still get their answer.
pub(crate) async fn run(args: FloodArgs, stop: CancellationToken) -> ExitCode {
    let prepared = Plan::try_from(&args).and_then(|plan| {
        let create = |path| {
            Receipts::create(path).map(Arc::new).map_err(|error| format!("--receipts {}: {error}", path.display()))
        };
        Ok((plan, args.receipts.as_deref().map(create).transpose()?))
    });
    let (plan, receipts) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => {
            eprintln!("ovation flood: {problem}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let report = flood_on_one_thread(plan, receipts.clone(), !args.quiet, stop).await;
    if args.json {
        println!("{}", serde_json::to_string(&report).expect("a report is numbers and texts"));
    } else if !args.quiet {
        print!("{report}");
    }
    let unwritten = receipts.and_then(|receipts| receipts.finish().err());
    let unwritten = unwritten.map(|error| format!("the receipts are not complete: {error}"));
    let complaints: Vec<_> = report.complaint().into_iter().chain(unwritten).collect();
    for complaint in &complaints {
        eprintln!("ovation flood: {complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Floods a door quietly, for whoever has more to measure than the flood.
///
/// # Errors
/// A sentence that names the wrong flag.
pub(crate) async fn measure(
    protocol: Protocol,
    url: Uri,
    rate: Rate,
    length: Duration,
    stop: CancellationToken,
) -> Result<Report, String> {
    let plan = Plan::try_from(&FloodArgs::of(protocol, url, rate, length))?;
    Ok(flood_on_one_thread(plan, None, false, stop).await)
}

/// A runtime with one thread spends up to a half less on a vote than one that wakes its threads for each other, which
/// matters where the flood shares a machine with the server.
async fn flood_on_one_thread(
    plan: Plan,
    receipts: Option<Arc<Receipts>>,
    shows_progress: bool,
    stop: CancellationToken,
) -> Report {
    let one_thread = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be built where one runs already").block_on(flood(
            plan,
            receipts,
            shows_progress,
            stop,
        ))
    };
    spawn_blocking(one_thread).await.expect("a flood does not panic, and nobody aborts it")
}

/// Votes at both doors, half of `rate` votes a second each, until `stop`; whatever the doors answer.
///
/// The votes are for the built-in bands, in `contest`, by nobody.
pub(crate) async fn demo(
    rest: SocketAddr,
    grpc: SocketAddr,
    rate: f64,
    contest: Option<&ContestId>,
    stop: CancellationToken,
) {
    if rate.is_nan() || rate <= 0.0 {
        return stop.cancelled().await;
    }
    let bands = Arc::new(Bands::built_in(contest));
    let at = |protocol, address, connections, in_flight| Plan {
        protocol,
        url: url_of(address),
        rate: Rate::PerSecond(rate / 2.0),
        // A round at a time: votes that a pause of the server or of the machine kept from being sent are let go.
        length: Duration::from_mins(1),
        connections,
        in_flight,
        batch_size: 1,
        bands: Arc::clone(&bands),
        voters: Voters::Nobody,
        retry_for: Duration::ZERO,
        timeout: Duration::from_secs(5),
        seed: rand::random(),
        wire: Arc::default(),
    };
    while !stop.is_cancelled() {
        join!(
            flood(at(Protocol::Rest, rest, 16, 16), None, false, stop.clone()),
            flood(at(Protocol::Grpc, grpc, 1, 64), None, false, stop.clone()),
        );
    }
}

/// Where a listener's address can be reached from here: nobody connects to "any address".
fn url_of(address: SocketAddr) -> Uri {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port())).parse().expect("a socket address is an authority")
}

/// What a flood's workers have in common.
struct Crew {
    plan: Plan,
    live: Arc<Live>,
    receipts: Option<Arc<Receipts>>,
    stop: CancellationToken,
}

async fn flood(plan: Plan, receipts: Option<Arc<Receipts>>, shows_progress: bool, stop: CancellationToken) -> Report {
    let crew = Crew { plan, live: Arc::default(), receipts, stop };
    let mut workers = JoinSet::new();
    let schedule = crew.start(&mut workers).await;

    let mut ledger = crew.ledger();
    let mut stopped = None;
    let finish = async {
        loop {
            select! {
                part = workers.join_next() => match part {
                    Some(part) => ledger.merge(part.expect("a worker does not panic, and nobody aborts it")),
                    None => break,
                },
                () = crew.stop.cancelled(), if stopped.is_none() => stopped = Some(Instant::now()),
            }
        }
    };
    let show = async {
        if shows_progress {
            progress::show(Arc::clone(&crew.live), schedule).await;
        }
        std::future::pending::<()>().await;
    };
    select! {
        () = finish => {}
        () = show => {}
        () = flush(crew.receipts.clone()) => {}
    }
    Report::new(&crew.plan, schedule, stopped.filter(|at| *at < schedule.end()), &ledger)
}

impl Crew {
    /// Connects all workers, and then starts them and the clock.
    async fn start(&self, workers: &mut JoinSet<Ledger>) -> Schedule {
        let plan = &self.plan;
        match plan.protocol {
            Protocol::Rest => {
                let casters = join_all((0..plan.connections).map(|_| Rest::connect(plan))).await;
                self.start_all(workers, casters, 1)
            }
            Protocol::RestBatch => {
                let casters = join_all((0..plan.connections).map(|_| RestBatch::connect(plan))).await;
                self.start_all(workers, casters, plan.batch_size as u64)
            }
            Protocol::Grpc => {
                let channels = join_all((0..plan.connections).map(|_| grpc::connect(plan))).await;
                let casters = channels.iter().cycle().take(plan.in_flight).map(|one| Grpc::new(one.clone(), plan));
                self.start_all(workers, casters.collect(), 1)
            }
            Protocol::GrpcStream => {
                let channels = join_all((0..plan.connections).map(|_| grpc::connect(plan))).await;
                let schedule = self.schedule(1);
                let window = plan.in_flight / plan.connections;
                for (index, channel) in channels.into_iter().enumerate() {
                    let worker = self.worker(schedule, index, plan.connections);
                    workers.spawn(Pipeline::new(worker, channel, window, plan.timeout).work());
                }
                schedule
            }
        }
    }

    fn start_all<C: Caster + 'static>(&self, workers: &mut JoinSet<Ledger>, casters: Vec<C>, unit: u64) -> Schedule {
        let schedule = self.schedule(unit);
        let count = casters.len();
        for (index, caster) in casters.into_iter().enumerate() {
            workers.spawn(self.worker(schedule, index, count).work(caster));
        }
        schedule
    }

    fn schedule(&self, unit: u64) -> Schedule {
        Schedule::new(Instant::now(), self.plan.length, self.plan.rate, unit)
    }

    fn worker(&self, schedule: Schedule, index: usize, count: usize) -> Worker {
        Worker {
            turns: schedule.turns(index, count),
            draw: Draw::new(Arc::clone(&self.plan.bands), self.plan.voters, self.plan.seed, index),
            bands: Arc::clone(&self.plan.bands),
            ledger: self.ledger(),
            retry_for: self.plan.retry_for,
            stop: self.stop.clone(),
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger::new(Arc::clone(&self.live), self.receipts.clone())
    }
}

/// Keeps the file of receipts fresh, for ever.
async fn flush(receipts: Option<Arc<Receipts>>) {
    let Some(receipts) = receipts else { return std::future::pending().await };
    let mut ticks = interval(receipts::FLUSH_EVERY);
    loop {
        ticks.tick().await;
        receipts.flush();
    }
}
