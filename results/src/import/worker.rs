//! Loads chunks, one at a time.

use std::time::Duration;

use metrics::{counter, describe_counter};
use tokio::time::sleep;
use votes::{
    Casting, Dataset, DatasetRow, Reason, Refusal, StoreError, UnixMillis, VoteRequest,
    import::{Ballots, Chunk, CsvRow, Import, ImportState, Loaded, Target, rows},
};

use super::{Importer, Patience, object};

/// The most rows that are loaded at a time, and about the most bytes of them.
const ROWS: usize = 1_000;
const BYTES: usize = 1 << 20;

/// How long is waited for room in the queue before the log.
const FULL: Duration = Duration::from_millis(50);

pub(super) fn describe_metrics() {
    describe_counter!("ovation_import_chunks_total", "Chunks of imported files that this process has loaded");
    describe_counter!(
        "ovation_import_rows_total",
        "Rows of imported files that this process has loaded, by what became of them"
    );
}

impl Importer {
    /// Loads chunks until it is dropped. A chunk that is being loaded then is loaded again by somebody.
    pub(crate) async fn work(self) {
        let mut patience = Patience::default();
        loop {
            let worked = async {
                let chunk = self.0.stores.chunks.next().await?;
                self.load(&chunk).await?;
                self.0.stores.chunks.settle().await
            };
            match worked.await {
                Ok(()) => patience.restore(),
                Err(error) => patience.wait(&error).await,
            }
        }
    }

    /// Loads a chunk, unless that is done.
    async fn load(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let imports = &self.0.stores.imports;
        if imports.is_done(chunk).await? {
            return Ok(());
        }
        let Some(import) = imports.find(chunk.import).await? else { return Ok(()) };
        if import.state != ImportState::Loading {
            return Ok(());
        }
        let Some(bytes) = self.0.stores.objects.read(&object(import.id), chunk.bytes.clone()).await? else {
            return self.give_up(&import, "its file is not in the object store any more").await;
        };
        let rows = rows(chunk, &bytes, import.contents.columns.len());
        let loaded = match &import.target {
            Target::Dataset { dataset, generation } => {
                self.load_rows(&import.contents.dataset(dataset, *generation), rows).await?
            }
            Target::Votes { contest } => match Ballots::new(&import.contents, contest.clone()) {
                Ok(ballots) => Some(self.cast(&ballots, rows).await?),
                Err(refusal) => return self.give_up(&import, &refusal.detail).await,
            },
        };
        let Some(loaded) = loaded else {
            return self.give_up(&import, "its dataset was removed").await;
        };
        let now = UnixMillis::now();
        imports.done(chunk, now, &loaded).await?;
        self.loaded_at().insert(import.id, now);
        counter!("ovation_import_chunks_total").increment(1);
        counter!("ovation_import_rows_total", "outcome" => "loaded").increment(loaded.rows);
        counter!("ovation_import_rows_total", "outcome" => "bad").increment(loaded.bad);
        self.0.progress.notify_one();
        Ok(())
    }

    async fn give_up(&self, import: &Import, problem: &str) -> Result<(), StoreError> {
        tracing::warn!(import = %import.id, problem, "an import is given up");
        self.0.stores.imports.end(import.id, &ImportState::Failed { problem: problem.to_owned() }).await
    }

    /// Loads rows of a dataset. `None` if that is not there any more.
    async fn load_rows(
        &self,
        dataset: &Dataset,
        rows: impl Iterator<Item = CsvRow>,
    ) -> Result<Option<Loaded>, StoreError> {
        let mut loaded = Loaded::default();
        let (mut batch, mut bytes) = (Vec::with_capacity(ROWS), 0);
        let mut rows = rows.peekable();
        while let Some(CsvRow { number, line, cells }) = rows.next() {
            match cells {
                Ok(cells) => {
                    bytes += cells.iter().map(String::len).sum::<usize>();
                    batch.push(DatasetRow { number, cells });
                }
                Err(problem) => loaded.refuse(line, problem),
            }
            if batch.len() == ROWS || bytes >= BYTES || rows.peek().is_none() {
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
    /// If the log is away. Casting them again is safe, as each has its id.
    async fn cast(&self, ballots: &Ballots, rows: impl Iterator<Item = CsvRow>) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let mut under_way = Vec::with_capacity(ROWS);
        let mut rows = rows.peekable();
        while let Some(row) = rows.next() {
            let line = row.line;
            match ballots.vote(row) {
                Ok(request) => match self.submit(request).await {
                    Ok(casting) => under_way.push((line, casting)),
                    Err(refusal) => refuse(&mut loaded, line, refusal)?,
                },
                Err(problem) => loaded.refuse(line, problem),
            }
            if under_way.len() == ROWS || rows.peek().is_none() {
                for (line, casting) in under_way.drain(..) {
                    match casting.await {
                        Ok(_) => loaded.rows += 1,
                        Err(refusal) => refuse(&mut loaded, line, refusal)?,
                    }
                }
            }
        }
        Ok(loaded)
    }

    /// Hands a vote over, once there is room for it.
    async fn submit(&self, request: VoteRequest) -> Result<Casting, Refusal> {
        loop {
            match self.0.door.submit(request.clone()).casting {
                Err(refusal) if refusal.reason == Reason::QueueFull => sleep(FULL).await,
                casting => return casting,
            }
        }
    }
}

/// A row that the door refuses is bad, unless another time will do.
fn refuse(loaded: &mut Loaded, line: u64, refusal: Refusal) -> Result<(), StoreError> {
    if refusal.reason.is_retryable() {
        return Err(StoreError::new("vote log", refusal.detail));
    }
    loaded.refuse(line, refusal.detail);
    Ok(())
}
