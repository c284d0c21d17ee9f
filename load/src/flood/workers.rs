//! Starts the workers of a flood and merges their statistics.

use std::{sync::Arc, time::Instant};

use futures::future::join_all;
use tokio::{select, task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

use super::{
    grpc::{self, Grpc},
    grpc_stream::Pipeline,
    plan::Plan,
    progress,
    protocol::Protocol,
    receipts::{self, Receipts},
    report::Report,
    rest::Rest,
    rest_batch::RestBatch,
    schedule::Schedule,
    statistics::{LiveCounts, Statistics},
    votes::VoteGenerator,
    worker::{Caster, Worker},
};

/// The state that all workers of a flood share, and that starts them.
struct Workers {
    plan: Plan,
    live: Arc<LiveCounts>,
    receipts: Option<Arc<Receipts>>,
    stop: CancellationToken,
}

/// Casts votes according to the plan, and returns the report.
pub(super) async fn flood(
    plan: Plan,
    receipts: Option<Arc<Receipts>>,
    shows_progress: bool,
    stop: CancellationToken,
) -> Report {
    let workers = Workers { plan, live: Arc::default(), receipts, stop };
    let mut tasks = JoinSet::new();
    let schedule = workers.start(&mut tasks).await;

    let mut statistics = workers.statistics();
    let mut stopped = None;
    let finish = async {
        loop {
            select! {
                part = tasks.join_next() => match part {
                    Some(part) => statistics.merge(part.expect("a worker does not panic and is not aborted")),
                    None => break,
                },
                () = workers.stop.cancelled(), if stopped.is_none() => stopped = Some(Instant::now()),
            }
        }
    };
    let show = async {
        if shows_progress {
            progress::show(Arc::clone(&workers.live), schedule).await;
        }
        std::future::pending::<()>().await;
    };
    select! {
        () = finish => {}
        () = show => {}
        () = flush(workers.receipts.clone()) => {}
    }
    Report::new(&workers.plan, schedule, stopped.filter(|at| *at < schedule.end()), &statistics)
}

impl Workers {
    /// Connects all workers, then starts the schedule and the workers.
    async fn start(&self, tasks: &mut JoinSet<Statistics>) -> Schedule {
        let plan = &self.plan;
        match plan.protocol {
            Protocol::Rest => {
                let casters = join_all((0..plan.connections).map(|_| Rest::connect(plan))).await;
                self.start_all(tasks, casters, 1)
            }
            Protocol::RestBatch => {
                let casters = join_all((0..plan.connections).map(|_| RestBatch::connect(plan))).await;
                self.start_all(tasks, casters, plan.batch_size as u64)
            }
            Protocol::Grpc => {
                let channels = join_all((0..plan.connections).map(|_| grpc::connect(plan))).await;
                let casters = channels.iter().cycle().take(plan.in_flight).map(|one| Grpc::new(one.clone(), plan));
                self.start_all(tasks, casters.collect(), 1)
            }
            Protocol::GrpcStream => {
                let channels = join_all((0..plan.connections).map(|_| grpc::connect(plan))).await;
                let schedule = self.schedule(1);
                let max_in_flight = plan.in_flight / plan.connections;
                for (index, channel) in channels.into_iter().enumerate() {
                    let worker = self.worker(schedule, index, plan.connections);
                    tasks.spawn(Pipeline::new(worker, channel, max_in_flight, plan.timeout).work());
                }
                schedule
            }
        }
    }

    fn start_all<C: Caster + 'static>(
        &self,
        tasks: &mut JoinSet<Statistics>,
        casters: Vec<C>,
        batch_size: u64,
    ) -> Schedule {
        let schedule = self.schedule(batch_size);
        let count = casters.len();
        for (index, caster) in casters.into_iter().enumerate() {
            tasks.spawn(self.worker(schedule, index, count).work(caster));
        }
        schedule
    }

    fn schedule(&self, batch_size: u64) -> Schedule {
        Schedule::new(Instant::now(), self.plan.length, self.plan.rate, batch_size)
    }

    fn worker(&self, schedule: Schedule, index: usize, count: usize) -> Worker {
        Worker {
            schedule: schedule.of_worker(index, count),
            generator: VoteGenerator::new(Arc::clone(&self.plan.bands), self.plan.voters, self.plan.seed, index),
            bands: Arc::clone(&self.plan.bands),
            statistics: self.statistics(),
            retry_for: self.plan.retry_for,
            stop: self.stop.clone(),
        }
    }

    fn statistics(&self) -> Statistics {
        Statistics::new(Arc::clone(&self.live), self.receipts.clone())
    }
}

/// Flushes the file of receipts at an interval. The future never ends.
async fn flush(receipts: Option<Arc<Receipts>>) {
    let Some(receipts) = receipts else { return std::future::pending().await };
    let mut ticks = interval(receipts::FLUSH_INTERVAL);
    loop {
        ticks.tick().await;
        receipts.flush();
    }
}
