//! Counting one partition: reconcile, then batch after batch, with one in flight.

use std::{sync::Arc, time::Duration};

use service::{
    CancellationToken,
    traces::{self, Tracer},
};
use tokio::time::{Instant, sleep};
use votes::{Batch, Counted, Counter, LogFacts, Partition, Progress, Stop, StoreError, VoteFeed};

use crate::{
    keeping::{Keeper, Keeping},
    meters::{self, Meters},
    state::States,
};

/// The most records of a batch.
const MAX_BATCH: usize = 1_000;

/// How long to wait before the stores are asked again: doubled after each failure.
const BACK_OFF: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// How long a partition without votes waits before it looks whether the stores are still where it left them, so that tallies
/// that were lost come back without a vote.
const IDLE: Duration = Duration::from_secs(1);

/// How often a stopped partition looks whether the operator has mended it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Counts until `stop`. The batch in flight is finished.
pub(crate) async fn run(
    partition: Partition,
    feed: Arc<dyn VoteFeed>,
    counter: Counter,
    (states, meters): (States, Meters),
    keeping: Keeping,
    stop: CancellationToken,
) {
    let task = Task { partition, feed, counter, meters, tracer: traces::tracer() };
    let mut keeper = Keeper::new(partition, keeping);
    let mut back_off = *BACK_OFF.start();
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let pause = match task.count_until(&mut keeper, &states, &stop).await {
            Ok(None) => continue,
            Ok(Some(halt)) => {
                tracing::error!(%partition, reason = %halt, "partition stopped");
                states.trouble(partition, halt.to_string());
                meters::stopped(partition, true);
                back_off = *BACK_OFF.start();
                LOOK_AGAIN
            }
            Err(error) => {
                if begun.elapsed() > *BACK_OFF.end() {
                    // It was counted meanwhile: this is another outage.
                    back_off = *BACK_OFF.start();
                }
                tracing::warn!(%partition, %error, retry_in = ?back_off, "counting paused");
                states.trouble(partition, error.to_string());
                let pause = back_off;
                back_off = (back_off * 2).min(*BACK_OFF.end());
                pause
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
    meters::stopped(partition, false);
}

struct Task {
    partition: Partition,
    feed: Arc<dyn VoteFeed>,
    counter: Counter,
    meters: Meters,
    tracer: Option<Tracer>,
}

impl Task {
    /// Reconciles and counts until a store disagrees or `stop`; what it returns is why the partition must stop.
    async fn count_until(
        &self,
        keeper: &mut Keeper,
        states: &States,
        stop: &CancellationToken,
    ) -> Result<Option<Stop>, StoreError> {
        let mut progress = match self.reconcile(stop).await? {
            None => return Ok(None),
            Some(Ok(progress)) => progress,
            Some(Err(halt)) => return Ok(Some(halt)),
        };
        self.feed.seek(self.partition, progress.booked).await?;
        states.begin(self.partition, progress.booked);
        meters::stopped(self.partition, false);
        loop {
            let Some(kept) = keeper.keep(&self.counter, &*self.feed, progress).await else {
                self.note_disagreement();
                return Ok(None);
            };
            progress = kept;
            let batch = tokio::select! {
                batch = self.feed.next_batch(self.partition, MAX_BATCH) => batch?,
                () = sleep(IDLE) => {
                    if self.counter.is_at(self.partition, progress).await? {
                        continue;
                    }
                    self.note_disagreement();
                    return Ok(None);
                }
                () = stop.cancelled() => return Ok(None),
            };
            let begun = Instant::now();
            let (to, size) = (batch.to, batch.records.len());
            self.bury(&batch).await?;
            let span = self.tracer.as_ref().and_then(|tracer| tracer.count(&batch));
            let outcome = self.counter.count(progress, batch).await;
            if let Some(span) = span {
                span.end(&outcome);
            }
            match outcome? {
                Counted::Done { progress: counted, votes, duplicates } => {
                    let age = self.meters.counted(size, begun.elapsed(), &votes, duplicates);
                    states.counted(self.partition, to, age);
                    progress = counted;
                }
                Counted::Disagreed => {
                    self.note_disagreement();
                    return Ok(None);
                }
            }
            self.feed.commit(self.partition, to).await?;
        }
    }

    fn note_disagreement(&self) {
        self.meters.reconciled();
        tracing::info!(partition = %self.partition, "stores moved, reconciling");
    }

    /// `None` if it was told to stop.
    async fn reconcile(&self, stop: &CancellationToken) -> Result<Option<Result<Progress, Stop>>, StoreError> {
        let before = self.counter.positions(self.partition).await?;
        let bounds = self.feed.bounds(self.partition).await?;
        let last = match before.booked.last {
            Some((offset, _)) if bounds.start <= offset && offset < bounds.end => {
                self.feed.seek(self.partition, offset).await?;
                let batch = tokio::select! {
                    batch = self.feed.next_batch(self.partition, 1) => batch?,
                    // Nothing comes any more from a partition that was revoked.
                    () = stop.cancelled() => return Ok(None),
                };
                let record = batch.records.into_iter().find(|record| record.offset == offset);
                record.and_then(|record| record.vote.ok()).map(|vote| vote.vote_id)
            }
            _ => None,
        };
        self.counter.reconcile(self.partition, before, LogFacts { bounds, last }).await.map(Some)
    }

    /// Dead letters are safe before counting passes them.
    async fn bury(&self, batch: &Batch) -> Result<(), StoreError> {
        let dead = batch.dead_letters();
        if dead.is_empty() {
            return Ok(());
        }
        for letter in &dead {
            tracing::warn!(place = %letter.place, reason = letter.poison.reason, "poison message put aside");
        }
        self.meters.buried(dead.len());
        self.feed.bury(&dead).await
    }
}
