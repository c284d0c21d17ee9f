//! The consumer: takes votes from the log and counts them.
//!
//! Each assigned partition has a task of its own ([`partition`]) with one batch in flight, so partitions are counted in
//! parallel and each in order. This file starts and stops them as the log assigns and revokes partitions; [`lag`] tells how far
//! they are behind.

mod keeping;
mod lag;
mod meters;
mod partition;
mod state;

use std::{collections::HashMap, sync::Arc};

use backends::Stores;
use service::{CancellationToken, Config, Health, health::Weight, program::Failure};
use tokio::{task::JoinHandle, try_join};
use votes::{Assignment, Counter, Facts, Partition, StoreError, VoteFeed};

pub use self::keeping::Keeping;
use self::{meters::Meters, state::States};

/// What counting needs, on the stores of a configuration.
///
/// # Errors
/// If a store is not as it has to be. One that can't be reached is waited for.
pub async fn open(config: &Config, stores: &Stores) -> Result<(Arc<dyn VoteFeed>, Counter, Keeping), Failure> {
    let (book, tallies) = try_join!(stores.book(Weight::Helpful), stores.tallies(Weight::Helpful))?;
    // Last, as whoever joins the group gets partitions.
    let feed = stores.feed(Weight::Helpful).await?;
    let keeping = Keeping::new(config.log_retention, config.book_retention, &book);
    Ok((feed, Counter::new(book, tallies), keeping))
}

/// Counts until shutdown, and lets go of what `keeping` does not keep; then finishes the batches in flight and returns.
/// `assigned` is called once there are partitions to count.
///
/// Store errors do not end it: counting pauses with back-off and goes on by itself.
///
/// # Errors
/// If the log can't say which partitions are this consumer's.
pub async fn run(
    feed: Arc<dyn VoteFeed>,
    counter: Counter,
    keeping: Keeping,
    health: Health,
    shutdown: CancellationToken,
    assigned: impl FnOnce(),
) -> Result<(), StoreError> {
    let (states, meters) = (States::default(), Meters::new());
    let lag = lag::watch(Arc::clone(&feed), states.clone());
    let ended = shutdown.child_token();
    let _end = ended.clone().drop_guard();
    tokio::spawn(ended.run_until_cancelled_owned(lag));
    let shown = states.clone();
    health.check("counting", Weight::Helpful, move || {
        std::future::ready(shown.problem().map_or_else(|| Ok(Facts::new()), Err))
    });
    let mut assigned = Some(assigned);

    let mut tasks: HashMap<Partition, Counting> = HashMap::new();
    loop {
        let change = tokio::select! {
            change = feed.assignment() => change?,
            () = shutdown.cancelled() => break,
        };
        match change {
            Assignment::Assigned(partitions) => {
                tracing::info!(count = partitions.len(), "partitions assigned");
                for partition in partitions {
                    let before = tasks.remove(&partition);
                    let stop = shutdown.child_token();
                    let shared = (states.clone(), meters.clone());
                    let (feed, counter, keeping) = (Arc::clone(&feed), counter.clone(), keeping.clone());
                    let task = partition::run(partition, feed, counter, shared, keeping, stop.clone());
                    let task = tokio::spawn(async move {
                        // A partition that comes back is not read by two tasks.
                        if let Some(before) = before {
                            before.end().await;
                        }
                        task.await;
                    });
                    tasks.insert(partition, Counting { stop, task });
                }
            }
            Assignment::Revoked(partitions) => {
                tracing::info!(count = partitions.len(), "partitions revoked");
                for partition in partitions {
                    if let Some(counting) = tasks.get(&partition) {
                        counting.stop.cancel();
                    }
                    states.forget(partition);
                }
            }
        }
        if let Some(assigned) = assigned.take() {
            assigned();
        }
    }
    for counting in tasks.into_values() {
        counting.end().await;
    }
    Ok(())
}

/// The task of a partition that is, or was, this consumer's.
struct Counting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Counting {
    /// Waits until the batch in flight is done.
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a partition's task failed");
        }
    }
}
