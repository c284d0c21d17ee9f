//! How many records wait to be counted, partition by partition.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use votes::{Partition, VoteFeed};

use crate::{meters, state::States};

/// How often the log is asked where it ends.
const EVERY: Duration = Duration::from_secs(1);

/// Tells the lag until the future is dropped.
pub(crate) async fn watch(feed: Arc<dyn VoteFeed>, states: States) -> Infallible {
    let mut shown: BTreeSet<Partition> = BTreeSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let positions = states.positions();
        meters::partitions(positions.len());
        for (partition, _) in &positions {
            // A log that does not answer has told its trouble where votes are read.
            let Ok(bounds) = feed.bounds(*partition).await else { continue };
            // What was counted while the log was asked does not wait.
            if let Some(lag) = states.lag(*partition, bounds.end) {
                meters::lag(*partition, lag);
            }
        }
        let mine = positions.into_iter().map(|(partition, _)| partition).collect();
        // Another consumer tells of those that were this one's.
        shown.difference(&mine).for_each(|partition| meters::lag(*partition, 0));
        shown = mine;
    }
}
