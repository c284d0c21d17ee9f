//! Metrics of the stores: the time and the failures of the frequent operations, and the number of queued votes. They
//! are the same for every adapter.

use std::{future::Future, sync::Arc, time::Instant};

use async_trait::async_trait;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use query::{Found, Query, QueryStore, Table};
use votes::{
    Added, Advanced, AlbumVotes, BallotKey, Checkpoint, ClearCondition, ContestId, Counts, Duplicate, HealthDetails,
    Ledger, LedgerRepair, LedgerRetention, LogPosition, LoggedVote, Offset, Partition, Purged, RateWindow, Snapshot,
    Store, StoreError, Summary, Tallies, TalliesPosition, Tally, UnixMillis, WholeLedger, Window,
};

/// Registers the gauges of the queue of the log writer, and sets `ovation_queued_votes_limit` to `max_votes`. Returns
/// `ovation_queued_votes`, which the log writer sets.
pub(crate) fn register_queued_votes(max_votes: usize) -> Gauge {
    describe_gauge!("ovation_queued_votes", "Votes that wait for their receipt");
    describe_gauge!("ovation_queued_votes_limit", "The most votes that may wait for their receipt");
    gauge!("ovation_queued_votes_limit").set(max_votes as f64);
    gauge!("ovation_queued_votes")
}

/// The metrics of one operation of a store: the time of each success, and the number of failures.
struct Operation {
    seconds: Histogram,
    failures: Counter,
}

impl Operation {
    fn new(store: &'static str, operation: &'static str) -> Self {
        Self {
            seconds: histogram!("ovation_store_seconds", "store" => store, "operation" => operation),
            failures: counter!("ovation_store_failures_total", "store" => store, "operation" => operation),
        }
    }

    async fn measure<T>(&self, operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let begun = Instant::now();
        let outcome = operation.await;
        match &outcome {
            Ok(_) => self.seconds.record(begun.elapsed()),
            Err(_) => self.failures.increment(1),
        }
        outcome
    }
}

fn describe_metrics() {
    describe_histogram!("ovation_store_seconds", Unit::Seconds, "The time that a store takes, by operation");
    describe_counter!("ovation_store_failures_total", "Failed operations of a store, by operation");
}

/// A ledger with metrics of the operations that counting, the audit and retention call often. The other operations are
/// not measured.
pub(crate) struct MeteredLedger {
    ledger: Arc<dyn WholeLedger>,
    insert: Operation,
    positions_of: Operation,
    advance_checkpoint: Operation,
    range: Operation,
    add_to_summary: Operation,
    purge_expired: Operation,
}

impl MeteredLedger {
    pub(crate) fn new(ledger: Arc<dyn WholeLedger>) -> Self {
        describe_metrics();
        let operation = |name| Operation::new("ledger", name);
        Self {
            ledger,
            insert: operation("insert"),
            positions_of: operation("positions_of"),
            advance_checkpoint: operation("advance_checkpoint"),
            range: operation("range"),
            add_to_summary: operation("add_to_summary"),
            purge_expired: operation("purge_expired"),
        }
    }
}

#[async_trait]
impl Store for MeteredLedger {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.ledger.check().await
    }
}

#[async_trait]
impl Ledger for MeteredLedger {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        self.ledger.checkpoint(partition).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.insert.measure(self.ledger.insert(votes)).await
    }

    async fn positions_of(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<LogPosition>>, StoreError> {
        self.positions_of.measure(self.ledger.positions_of(keys)).await
    }

    async fn advance_checkpoint(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        self.advance_checkpoint.measure(self.ledger.advance_checkpoint(partition, from, checkpoint)).await
    }

    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        max_votes: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        self.range.measure(self.ledger.range(partition, from, to, max_votes)).await
    }

    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<bool, StoreError> {
        self.ledger.record_duplicates(duplicates).await
    }

    async fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Duplicate>, StoreError> {
        self.ledger.duplicates(partition, from, to).await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        self.ledger.summary(partition).await
    }
}

#[async_trait]
impl LedgerRetention for MeteredLedger {
    async fn add_to_summary(&self, partition: Partition, from: Offset, expired: Summary) -> Result<bool, StoreError> {
        self.add_to_summary.measure(self.ledger.add_to_summary(partition, from, expired)).await
    }

    async fn compact_summary(&self, partition: Partition) -> Result<(), StoreError> {
        self.ledger.compact_summary(partition).await
    }

    async fn clean_summary(&self, partition: Partition) -> Result<(), StoreError> {
        self.ledger.clean_summary(partition).await
    }

    async fn purge_expired(
        &self,
        partition: Partition,
        votes: Vec<(BallotKey, Offset)>,
        max_duplicates: usize,
    ) -> Result<Purged, StoreError> {
        self.purge_expired.measure(self.ledger.purge_expired(partition, votes, max_duplicates)).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        self.ledger.size().await
    }
}

#[async_trait]
impl LedgerRepair for MeteredLedger {
    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        self.ledger.rewind(partition, to).await
    }
}

/// Tallies with metrics of the additions and the queries. The other operations are not measured.
pub(crate) struct MeteredTallies {
    tallies: Arc<dyn Tallies>,
    add: Operation,
    tally: Operation,
    albums: Operation,
    rates: Operation,
    fenced: Counter,
}

impl MeteredTallies {
    pub(crate) fn new(tallies: Arc<dyn Tallies>) -> Self {
        describe_metrics();
        describe_counter!("ovation_fenced_batches_total", "Batches that another consumer had already counted");
        describe_gauge!("ovation_redis_memory_used_ratio", "How full the memory limit of Redis is, 0 to 1");
        let operation = |name| Operation::new("tallies", name);
        Self {
            tallies,
            add: operation("add"),
            tally: operation("tally"),
            albums: operation("albums"),
            rates: operation("rates"),
            fenced: counter!("ovation_fenced_batches_total"),
        }
    }
}

#[async_trait]
impl Store for MeteredTallies {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let details = self.tallies.check().await?;
        if let Some(ratio) = details.get("memory_used_ratio").and_then(|ratio| ratio.parse::<f64>().ok()) {
            gauge!("ovation_redis_memory_used_ratio").set(ratio);
        }
        Ok(details)
    }
}

#[async_trait]
impl Tallies for MeteredTallies {
    async fn position(&self, partition: Partition) -> Result<TalliesPosition, StoreError> {
        self.tallies.position(partition).await
    }

    async fn add(
        &self,
        partition: Partition,
        from: Offset,
        to: TalliesPosition,
        counts: Counts,
    ) -> Result<Added, StoreError> {
        let added = self.add.measure(self.tallies.add(partition, from, to, counts)).await?;
        if let Added::Fenced(_) = added {
            self.fenced.increment(1);
        }
        Ok(added)
    }

    async fn announce_recount(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        self.tallies.announce_recount(partition, to).await
    }

    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError> {
        self.tally.measure(self.tallies.tally(contest, top)).await
    }

    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        self.albums.measure(self.tallies.albums(contest, top)).await
    }

    async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError> {
        self.rates.measure(self.tallies.rates(contest, window, from, to)).await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.tallies.snapshot().await
    }

    async fn changed(&self, version: u64) -> Result<u64, StoreError> {
        self.tallies.changed(version).await
    }

    async fn clear(&self, condition: ClearCondition) -> Result<bool, StoreError> {
        self.tallies.clear(condition).await
    }
}

/// A query store whose queries are measured.
pub(crate) struct MeteredQueryStore {
    query_store: Arc<dyn QueryStore>,
    find: Operation,
}

impl MeteredQueryStore {
    /// Measures `query_store`. `operation` is the label of its queries: `pool` or `direct`.
    pub(crate) fn new(query_store: Arc<dyn QueryStore>, operation: &'static str) -> Self {
        describe_metrics();
        Self { query_store, find: Operation::new("query store", operation) }
    }
}

#[async_trait]
impl Store for MeteredQueryStore {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.query_store.check().await
    }
}

#[async_trait]
impl QueryStore for MeteredQueryStore {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        self.find.measure(self.query_store.find(table, query)).await
    }
}
