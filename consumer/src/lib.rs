//! The consumer: reads votes from the log and counts them.
//!
//! Each assigned partition has a task of its own ([`partition`]), which counts one batch at a time. So partitions are
//! counted in parallel, and each partition is counted in order. This file starts a task when the log assigns a
//! partition, and stops it when the log revokes the partition. [`lag`] measures how many records are not counted yet,
//! and [`retention`] expires counted votes.

mod lag;
mod meters;
mod partition;
mod retention;
mod state;

use std::{collections::HashMap, sync::Arc};

use service::{
    CancellationToken, Context, Health,
    health::{Criticality, Latch},
    program::Failure,
};
use stores::Stores;
use tokio::try_join;
use tokio_util::task::AbortOnDropHandle;
use votes::{Assignment, Counter, HealthDetails, LedgerRetention, LogReader, Partition, StoreError};

pub use self::retention::RetentionPolicy;
use self::{meters::Meters, state::States};

/// The dependencies of the service.
pub struct Dependencies {
    /// Counts votes into the ledger and the tallies.
    pub counter: Counter,
    /// How many counted votes the vote log and the ledger retain.
    pub retention: RetentionPolicy,
    /// The health to which the service adds the check `counting`.
    pub health: Health,
    /// The service drops this latch when the log has assigned partitions for the first time.
    pub until_assigned: Option<Latch>,
}

impl Dependencies {
    /// Opens the ledger and the tallies.
    ///
    /// # Errors
    /// If a store does not have the required properties. If a store can't be reached, this waits until it can.
    pub async fn open(context: &Context, stores: &Stores) -> Result<Self, Failure> {
        let Context { config, health, .. } = context;
        let until_assigned = Some(health.add_latch("partitions"));
        // Optional: while a store fails, the consumer stays ready, and tries again.
        let (ledger, tallies) = try_join!(stores.ledger(Criticality::Optional), stores.tallies(Criticality::Optional))?;
        let retained: Arc<dyn LedgerRetention> = ledger.clone();
        let retention = RetentionPolicy::new(config.vote_log_retention, config.ledger_retention, &retained, &tallies);
        Ok(Self { counter: Counter::new(ledger, tallies), retention, health: health.clone(), until_assigned })
    }
}

/// Opens the log reader, which takes the place of a network listener in [`program::serve`](service::program::serve).
/// The reader joins the consumer group, which then assigns partitions to it. So open all dependencies first.
///
/// # Errors
/// If the log does not have the required properties. If the log can't be reached, this waits until it can.
pub async fn listen(stores: &Stores) -> Result<Arc<dyn LogReader>, Failure> {
    stores.log_reader(Criticality::Optional).await
}

/// Counts votes until shutdown, and expires votes according to the retention policy. After shutdown began, finishes the
/// batches that are being counted, and returns.
///
/// An error while a partition is counted does not end this function. The task of the partition pauses, longer after each further error,
/// and tries again.
///
/// # Errors
/// If the log can't assign partitions to this consumer.
pub async fn run(
    log_reader: Arc<dyn LogReader>,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> Result<(), StoreError> {
    let Dependencies { counter, retention, health, mut until_assigned } = dependencies;
    let (states, meters) = (States::default(), Meters::new());
    meters::set_partitions(log_reader.partitions());
    let lag = lag::watch(Arc::clone(&log_reader), states.clone());
    let _lag = AbortOnDropHandle::new(tokio::spawn(lag));
    retention::describe_metrics();
    let expiring = retention::expire_log(Arc::clone(&log_reader), retention.clone(), states.clone());
    let compacting = retention::compact_summaries(retention.clone(), states.clone());
    let retention_tasks =
        [AbortOnDropHandle::new(tokio::spawn(expiring)), AbortOnDropHandle::new(tokio::spawn(compacting))];
    let checked_states = states.clone();
    add_check(&health, "counting", move || checked_states.problem());
    if retention.is_limited() {
        let checked_retention = retention.clone();
        add_check(&health, "retention", move || checked_retention.problem());
    }

    let mut tasks: HashMap<Partition, PartitionTask> = HashMap::new();
    loop {
        let assignment = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            assignment = log_reader.assignment() => assignment?,
        };
        match assignment {
            Assignment::Assigned(partitions) => {
                tracing::info!(count = partitions.len(), "partitions assigned");
                for partition in partitions {
                    // If the partition was assigned before, its former task must end first.
                    let former = tasks.remove(&partition);
                    let stop = shutdown.child_token();
                    let task = tokio::spawn({
                        let (log_reader, counter, retention) =
                            (Arc::clone(&log_reader), counter.clone(), retention.clone());
                        let (states, meters, stop) = (states.clone(), meters.clone(), stop.clone());
                        async move {
                            if let Some(former) = former {
                                former.stop_and_wait().await;
                            }
                            let shared = (states.claim(partition), meters);
                            partition::run(partition, Arc::clone(&log_reader), counter, shared, retention, stop).await;
                            log_reader.release(partition).await;
                        }
                    });
                    tasks.insert(partition, PartitionTask { stop, task: AbortOnDropHandle::new(task) });
                }
            }
            Assignment::Revoked(partitions) => {
                tracing::info!(count = partitions.len(), "partitions revoked");
                for partition in partitions {
                    if let Some(task) = tasks.get(&partition) {
                        task.stop.cancel();
                    }
                }
            }
        }
        drop(until_assigned.take());
    }
    drop(retention_tasks);
    for task in tasks.into_values() {
        task.stop_and_wait().await;
    }
    Ok(())
}

/// Adds a check that fails while there is a problem.
fn add_check(health: &Health, name: &'static str, problem: impl Fn() -> Option<String> + Send + Sync + 'static) {
    health.add_check(name, Criticality::Optional, move || {
        std::future::ready(problem().map_or_else(|| Ok(HealthDetails::new()), Err))
    });
}

/// The task of a partition that is, or was, assigned to this consumer. Dropping it aborts the task, which is like a crash
/// of this consumer for the partition.
struct PartitionTask {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl PartitionTask {
    /// Stops the task, and waits until it has finished its current batch.
    async fn stop_and_wait(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of a partition failed");
        }
    }
}
