//! The reconciler finishes imports whose chunks are all loaded, and publishes chunks again if no worker loads them.

use std::{collections::HashMap, time::Duration};

use query::import::{Import, ImportId, ImportState, Target};
use tokio::time::{Instant, timeout};
use votes::{StoreError, UnixMillis};

use super::{backoff::Backoff, importer::Importer};

/// The longest time between two runs.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(2);

/// The time without a loaded chunk after which a worker of the import may have ended.
///
/// After this time, every process may finish an import whose chunks are all loaded, and publishes the missing chunks of
/// another import again. Before, only the process that loaded the last chunk finishes the import, because one process
/// should create the indexes of a dataset.
const STALL_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest time before chunks are published again. The first time is [`STALL_TIMEOUT`], and each further time is
/// twice as long, because a worker must check each chunk that is published again.
const MAX_STALL_TIMEOUT: Duration = Duration::from_mins(10);

/// The maximum number of chunks of an import that are published again at a time.
const MAX_REPUBLISHED_CHUNKS: usize = 1_000;

/// The time at which this process last published chunks of an import again, and the wait before the next time.
type Republished = HashMap<ImportId, (Instant, Duration)>;

impl Importer {
    /// Reconciles the imports after progress and at an interval. Never returns.
    pub(crate) async fn run_reconciler(self) {
        let (mut republished, mut backoff) = (Republished::new(), Backoff::default());
        loop {
            let _ = timeout(RECONCILE_INTERVAL, self.0.progress.notified()).await;
            match self.reconcile(&mut republished).await {
                Ok(()) => backoff.reset(),
                Err(error) => backoff.wait(&error).await,
            }
        }
    }

    async fn reconcile(&self, republished: &mut Republished) -> Result<(), StoreError> {
        let loading = self.0.stores.imports.loading().await?;
        republished.retain(|id, _| loading.iter().any(|import| import.id == *id));
        self.loaded_at().retain(|_, at| time_since(*at) < STALL_TIMEOUT);
        for import in &loading {
            let progress = self.0.stores.imports.progress(import.id).await?;
            let last = progress.last_done_at.unwrap_or(import.begun_at).max(import.begun_at);
            let stalled_for = time_since(last);
            if progress.chunks >= import.contents.chunks {
                if stalled_for >= STALL_TIMEOUT || self.loaded_at().get(&import.id) == progress.last_done_at.as_ref() {
                    self.finish(import).await?;
                }
                continue;
            }
            let (at, wait) =
                republished.get(&import.id).copied().unwrap_or((Instant::now() - stalled_for, STALL_TIMEOUT));
            if stalled_for >= STALL_TIMEOUT && at.elapsed() >= wait {
                let chunks = self.0.stores.imports.pending_chunks(import.id, MAX_REPUBLISHED_CHUNKS).await?;
                tracing::info!(import = %import.id, chunks = chunks.len(), "publishing chunks again that no worker has loaded");
                self.0.stores.chunks.publish(&chunks).await?;
                republished.insert(import.id, (Instant::now(), (wait * 2).min(MAX_STALL_TIMEOUT)));
            }
        }
        Ok(())
    }

    /// Finishes an import whose chunks are all done.
    async fn finish(&self, import: &Import) -> Result<(), StoreError> {
        let exists = match &import.target {
            Target::Votes { .. } => true,
            Target::Dataset { dataset, generation } => {
                self.0.datasets.finish(&import.contents.dataset(dataset, *generation)).await?
            }
        };
        let state = if exists {
            ImportState::Done
        } else {
            ImportState::Failed { problem: "the dataset was removed".to_owned() }
        };
        self.0.stores.imports.end(import.id, &state).await?;
        tracing::info!(import = %import.id, rows = import.contents.rows, "an import has ended");
        Ok(())
    }
}

fn time_since(at: UnixMillis) -> Duration {
    UnixMillis::now().since(at)
}
