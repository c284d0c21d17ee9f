//! This module reads the tallies and the ends of the vote log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::try_join_all;
use tokio::sync::Semaphore;
use votes::{
    AlbumVotes, ContestId, Contests, LogReader, Offset, Partition, RateWindow, StoreError, TOP_BANDS, Tallies,
    UnixMillis, Window,
};

use super::{
    contest_tally::ContestTally,
    shared_read::SharedRead,
    watermark::{Watermark, Watermarks},
};
use crate::calls::{STORE_TIMEOUT, StoreCalls};

/// The longest time that the log may take to return its ends. A tally does not depend on the ends, so the response with
/// the tally does not wait longer.
const LOG_ENDS_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of requests for albums and rates that the tallies process at a time. Further requests wait, up to
/// the time-out.
const MAX_CONCURRENT_REQUESTS: usize = 4;

const TALLIES: &str = "tallies";
const LOG: &str = "vote log";

/// The tallies and the log, with time-outs, shared reads and a limit of concurrent requests.
pub(crate) struct LiveStores {
    tallies: Arc<dyn Tallies>,
    log_reader: Arc<dyn LogReader>,
    contest_tallies: BTreeMap<ContestId, SharedRead<Arc<ContestTally>>>,
    /// The read of the sum of the log's ends.
    accepted: SharedRead<u64>,
    last_accepted: Mutex<Option<u64>>,
    watermarks: Mutex<Watermarks>,
    calls: StoreCalls,
    permits: Arc<Semaphore>,
}

impl LiveStores {
    pub(crate) fn new(contests: &Contests, tallies: Arc<dyn Tallies>, log_reader: Arc<dyn LogReader>) -> Self {
        Self {
            tallies,
            log_reader,
            contest_tallies: contests.ids().map(|contest| (contest.clone(), SharedRead::default())).collect(),
            accepted: SharedRead::default(),
            last_accepted: Mutex::default(),
            watermarks: Mutex::default(),
            calls: StoreCalls::default(),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_REQUESTS)),
        }
    }

    /// Returns the tally of a contest, from a read that began after this call.
    pub(crate) async fn contest_tally(&self, contest: &ContestId) -> Result<Arc<ContestTally>, StoreError> {
        let read = async {
            let tally = self.tallies.tally(contest, TOP_BANDS);
            let tally = self.calls.call(TALLIES, STORE_TIMEOUT, tally).await?;
            // The log is read after the tally. So `accepted` includes all counted votes.
            let accepted = self.accepted(tally.processed).await?;
            Ok(Arc::new(ContestTally { tally, accepted }))
        };
        match self.contest_tallies.get(contest) {
            Some(shared) => shared.get(read).await,
            None => read.await,
        }
    }

    /// Returns the number of records on the log, at least `processed`.
    ///
    /// If the log does not respond, returns the last number that was read. Usually, a log that does not respond accepts
    /// no votes either.
    pub(crate) async fn accepted(&self, processed: u64) -> Result<u64, StoreError> {
        let read = async { Ok(self.log_ends().await?.iter().map(|end| end.0).sum()) };
        let accepted = self.accepted.get(read).await;
        let mut last = self.last_accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(accepted) = accepted {
            *last = Some(accepted);
        }
        last.map_or(accepted, Ok).map(|accepted| accepted.max(processed))
    }

    /// Returns the end of the log in each partition.
    async fn log_ends(&self) -> Result<Vec<Offset>, StoreError> {
        let log_reader = &self.log_reader;
        let bounds = (0..log_reader.partitions()).map(|partition| log_reader.bounds(Partition(partition)));
        let bounds = self.calls.call(LOG, LOG_ENDS_TIMEOUT, try_join_all(bounds)).await?;
        Ok(bounds.into_iter().map(|bounds| bounds.end).collect())
    }

    /// Returns the position of the tallies in each partition.
    async fn positions(&self) -> Result<Vec<Offset>, StoreError> {
        let tallies = &self.tallies;
        let positions = (0..self.log_reader.partitions()).map(|partition| tallies.position(Partition(partition)));
        let positions = self.calls.call(TALLIES, STORE_TIMEOUT, try_join_all(positions)).await?;
        Ok(positions.into_iter().map(|position| position.offset).collect())
    }

    /// Returns the latest watermark that counting has passed: every vote that was accepted before this time is counted.
    pub(crate) async fn settled(&self) -> Result<Option<Watermark>, StoreError> {
        let now = UnixMillis::now();
        let watermark = Watermark::new(now, self.log_ends().await?);
        let positions = self.positions().await?;
        Ok(self.watermarks.lock().unwrap_or_else(PoisonError::into_inner).advance(watermark, &positions))
    }

    /// Returns whether counting is still past this watermark. Returns `false` if the tallies have lost data since then.
    pub(crate) async fn is_settled(&self, watermark: &Watermark) -> Result<bool, StoreError> {
        Ok(watermark.is_passed(&self.positions().await?))
    }

    /// Waits until the version of the tallies differs from `version`.
    pub(crate) async fn changed(&self, version: u64) -> Result<u64, StoreError> {
        self.tallies.changed(version).await
    }

    pub(crate) async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        let (tallies, contest) = (Arc::clone(&self.tallies), contest.clone());
        self.calls.call_with_permit(TALLIES, &self.permits, async move { tallies.albums(&contest, top).await }).await
    }

    pub(crate) async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError> {
        let (tallies, contest) = (Arc::clone(&self.tallies), contest.cloned());
        let call = async move { tallies.rates(contest.as_ref(), window, from, to).await };
        self.calls.call_with_permit(TALLIES, &self.permits, call).await
    }
}
