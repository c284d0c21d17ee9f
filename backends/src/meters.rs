//! How long the stores take and how full the queue is, measured the same for every adapter.

use std::{future::Future, sync::Arc, time::Instant};

use async_trait::async_trait;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use votes::{
    Added, Advanced, AlbumVotes, Archive, BallotKey, Book, Checkpoint, ContestId, Counts, Facts, Found, LoggedVote,
    Offset, Partition, Place, RateWindow, Repeat, Snapshot, Store, StoreError, Summary, Table, Tallies, Tally,
    UnixMillis, Window, query::Query,
};

/// `ovation_queue_votes`, of a queue that holds at most `most`.
pub(crate) fn queue(most: usize) -> Gauge {
    describe_gauge!("ovation_queue_votes", "Votes that wait for the log's receipt");
    describe_gauge!("ovation_queue_limit_votes", "How many votes may wait for the log's receipt");
    gauge!("ovation_queue_limit_votes").set(most as f64);
    gauge!("ovation_queue_votes")
}

/// One operation of a store.
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

    async fn measure<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let begun = Instant::now();
        let answer = answer.await;
        match &answer {
            Ok(_) => self.seconds.record(begun.elapsed()),
            Err(_) => self.failures.increment(1),
        }
        answer
    }
}

fn describe() {
    describe_histogram!("ovation_store_seconds", Unit::Seconds, "How long a store takes, by operation");
    describe_counter!("ovation_store_failures_total", "What a store failed to do, by operation");
}

/// A book whose operations are measured.
pub(crate) struct MeteredBook {
    book: Arc<dyn Book>,
    insert: Operation,
    locate: Operation,
    advance: Operation,
    range: Operation,
    forget: Operation,
}

impl MeteredBook {
    pub(crate) fn new(book: Arc<dyn Book>) -> Self {
        describe();
        let operation = |name| Operation::new("book", name);
        Self {
            book,
            insert: operation("insert"),
            locate: operation("locate"),
            advance: operation("advance"),
            range: operation("range"),
            forget: operation("forget"),
        }
    }
}

#[async_trait]
impl Store for MeteredBook {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.book.check().await
    }
}

#[async_trait]
impl Book for MeteredBook {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        self.book.checkpoint(partition).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.insert.measure(self.book.insert(votes)).await
    }

    async fn locate(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<Place>>, StoreError> {
        self.locate.measure(self.book.locate(keys)).await
    }

    async fn advance(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        self.advance.measure(self.book.advance(partition, from, checkpoint)).await
    }

    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        most: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        self.range.measure(self.book.range(partition, from, to, most)).await
    }

    async fn note_repeats(&self, repeats: Vec<Repeat>) -> Result<(), StoreError> {
        self.book.note_repeats(repeats).await
    }

    async fn repeats(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Repeat>, StoreError> {
        self.book.repeats(partition, from, to).await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        self.book.summary(partition).await
    }

    async fn summarise(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
        self.book.summarise(partition, from, summary).await
    }

    async fn forget(&self, partition: Partition) -> Result<u64, StoreError> {
        self.forget.measure(self.book.forget(partition)).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        self.book.size().await
    }

    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        self.book.rewind(partition, to).await
    }
}

/// Tallies whose operations are measured.
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
        describe();
        describe_counter!("ovation_fenced_batches_total", "Batches that another consumer had counted before");
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
    async fn check(&self) -> Result<Facts, StoreError> {
        self.tallies.check().await
    }
}

#[async_trait]
impl Tallies for MeteredTallies {
    async fn position(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.tallies.position(partition).await
    }

    async fn add(&self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Result<Added, StoreError> {
        let added = self.add.measure(self.tallies.add(partition, from, to, counts)).await?;
        if let Added::Fenced(_) = added {
            self.fenced.increment(1);
        }
        Ok(added)
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

    async fn changed(&self, seen: u64) -> Result<u64, StoreError> {
        self.tallies.changed(seen).await
    }

    async fn clear(&self) -> Result<(), StoreError> {
        self.tallies.clear().await
    }
}

/// An archive whose questions are measured.
pub(crate) struct MeteredArchive {
    archive: Arc<dyn Archive>,
    find: Operation,
}

impl MeteredArchive {
    /// `operation` says in which way it is asked.
    pub(crate) fn new(archive: Arc<dyn Archive>, operation: &'static str) -> Self {
        describe();
        Self { archive, find: Operation::new("archive", operation) }
    }
}

#[async_trait]
impl Store for MeteredArchive {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.archive.check().await
    }
}

#[async_trait]
impl Archive for MeteredArchive {
    async fn find(&self, table: &Table, query: &Query) -> Result<Found, StoreError> {
        self.find.measure(self.archive.find(table, query)).await
    }
}
