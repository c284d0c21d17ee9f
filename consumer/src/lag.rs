//! Measures how many records of each partition are not counted yet.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval};
use votes::LogReader;

use crate::state::States;

/// The interval at which the lag is measured.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// Measures the lag until the future is dropped. It asks the log for the end of each partition, and does not rely on the
/// records that the log reader has fetched: if the log reader fetches no records, the lag must show this.
pub(crate) async fn watch(log_reader: Arc<dyn LogReader>, states: States) -> Infallible {
    let mut ticks = interval(LAG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let measurements = states.partitions().into_iter().map(async |partition| {
            // If the log fails, the task that reads the votes reports the error.
            if let Ok(bounds) = log_reader.bounds(partition).await {
                states.update_lag(partition, bounds.end);
            }
        });
        join_all(measurements).await;
    }
}
