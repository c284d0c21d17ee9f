//! The worker loads chunks, one at a time.

use std::time::Duration;

use metrics::{counter, describe_counter};
use query::{
    Dataset, DatasetRow,
    import::{Chunk, CsvRow, Import, ImportState, Loaded, Target, VoteMapper, read_rows},
};
use tokio::time::sleep;
use votes::{PendingReceipt, Reason, Refusal, StoreError, UnixMillis, VoteRequest};

use super::{
    backoff::Backoff,
    importer::{Importer, object_name},
};

/// The maximum number of rows that are loaded at a time.
const MAX_BATCH_ROWS: usize = 1_000;

/// The size of the rows that are loaded at a time, in bytes of their text. The row that reaches this size is the last.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// The delay before a vote is submitted again if the queue of the vote log is full.
const QUEUE_FULL_DELAY: Duration = Duration::from_millis(50);

fn describe_metrics() {
    describe_counter!("ovation_import_chunks_total", "Chunks of imported files that this process has loaded");
    describe_counter!(
        "ovation_import_rows_total",
        "Rows of imported files that this process has processed, by outcome"
    );
}

impl Importer {
    /// Loads chunks. Never returns. If the future is dropped, another worker loads the current chunk again.
    pub(crate) async fn run_worker(self) {
        describe_metrics();
        let mut backoff = Backoff::default();
        loop {
            let load_next = async {
                let chunk = self.0.stores.chunks.next().await?;
                self.load(&chunk).await?;
                self.0.stores.chunks.acknowledge().await
            };
            match load_next.await {
                Ok(()) => backoff.reset(),
                Err(error) => backoff.wait(&error).await,
            }
        }
    }

    /// Loads a chunk, unless the chunk is done already.
    async fn load(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let imports = &self.0.stores.imports;
        if imports.is_done(chunk).await? {
            return Ok(());
        }
        let Some(import) = imports.find(chunk.import).await? else { return Ok(()) };
        if import.state != ImportState::Loading {
            return Ok(());
        }
        let Some(bytes) = self.0.stores.objects.read(&object_name(import.id), chunk.bytes.clone()).await? else {
            return self.fail(&import, "the file is no longer in the object store").await;
        };
        let rows = read_rows(chunk, &bytes, import.contents.columns.len());
        let loaded = match &import.target {
            Target::Dataset { dataset, generation } => {
                self.load_rows(&import.contents.dataset(dataset, *generation), rows).await?
            }
            Target::Votes { contest } => match VoteMapper::new(&import.contents, contest.clone()) {
                Ok(mapper) => Some(self.cast_rows(&mapper, rows).await?),
                Err(refusal) => return self.fail(&import, &refusal.detail).await,
            },
        };
        let Some(loaded) = loaded else {
            return self.fail(&import, "the dataset was removed").await;
        };
        let now = UnixMillis::now();
        imports.record_done(chunk, now, &loaded).await?;
        self.loaded_at().insert(import.id, now);
        counter!("ovation_import_chunks_total").increment(1);
        counter!("ovation_import_rows_total", "outcome" => "loaded").increment(loaded.rows);
        counter!("ovation_import_rows_total", "outcome" => "bad").increment(loaded.bad);
        self.0.progress.notify_one();
        Ok(())
    }

    /// Ends an import as failed.
    async fn fail(&self, import: &Import, problem: &str) -> Result<(), StoreError> {
        tracing::warn!(import = %import.id, problem, "an import failed");
        self.0.stores.imports.end(import.id, &ImportState::Failed { problem: problem.to_owned() }).await
    }

    /// Loads rows of a dataset. Returns `None` if the dataset was removed.
    async fn load_rows(
        &self,
        dataset: &Dataset,
        rows: impl Iterator<Item = CsvRow>,
    ) -> Result<Option<Loaded>, StoreError> {
        let mut loaded = Loaded::default();
        let (mut batch, mut bytes) = (Vec::with_capacity(MAX_BATCH_ROWS), 0);
        let mut rows = rows.peekable();
        while let Some(CsvRow { number, line, cells }) = rows.next() {
            match cells {
                Ok(cells) => {
                    bytes += cells.iter().map(String::len).sum::<usize>();
                    batch.push(DatasetRow { number, cells });
                }
                Err(problem) => loaded.add_bad_row(line, problem),
            }
            if batch.len() == MAX_BATCH_ROWS || bytes >= MAX_BATCH_BYTES || rows.peek().is_none() {
                let count = batch.len() as u64;
                if !self.0.datasets.load(dataset, std::mem::take(&mut batch)).await? {
                    return Ok(None);
                }
                loaded.rows += count;
                bytes = 0;
            }
        }
        Ok(Some(loaded))
    }

    /// Casts rows as votes.
    ///
    /// # Errors
    /// If the vote log is unavailable. It is safe to cast the rows again, because each vote has an id.
    async fn cast_rows(&self, mapper: &VoteMapper, rows: impl Iterator<Item = CsvRow>) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let mut in_flight = Vec::with_capacity(MAX_BATCH_ROWS);
        let mut rows = rows.peekable();
        while let Some(row) = rows.next() {
            let line = row.line;
            match mapper.vote(row) {
                Ok(request) => match self.submit(request).await {
                    Ok(pending) => in_flight.push((line, pending)),
                    Err(refusal) => add_refused(&mut loaded, line, refusal)?,
                },
                Err(problem) => loaded.add_bad_row(line, problem),
            }
            if in_flight.len() == MAX_BATCH_ROWS || rows.peek().is_none() {
                for (line, pending) in in_flight.drain(..) {
                    match pending.await {
                        Ok(_) => loaded.rows += 1,
                        Err(refusal) => add_refused(&mut loaded, line, refusal)?,
                    }
                }
            }
        }
        Ok(loaded)
    }

    /// Submits a vote to the ingest. While the queue of the vote log is full, waits and submits the vote again.
    async fn submit(&self, request: VoteRequest) -> Result<PendingReceipt, Refusal> {
        loop {
            match self.0.ingest.submit(request.clone()).pending {
                Err(refusal) if refusal.reason == Reason::QueueFull => sleep(QUEUE_FULL_DELAY).await,
                pending => return pending,
            }
        }
    }
}

/// Adds a refused vote to `loaded` as a bad row. Returns an error if the vote can be cast later.
fn add_refused(loaded: &mut Loaded, line: u64, refusal: Refusal) -> Result<(), StoreError> {
    if refusal.reason.is_retryable() {
        return Err(StoreError::new("vote log", refusal.detail));
    }
    loaded.add_bad_row(line, refusal.detail);
    Ok(())
}
