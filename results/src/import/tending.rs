//! Sees to imports that are loading: those that are done end, and what nobody works on is published anew.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, timeout};
use votes::{
    StoreError, UnixMillis,
    import::{Import, ImportId, ImportState, Target},
};

use super::{Importer, Patience};

/// How often is looked, if nothing was done meanwhile.
const LOOK: Duration = Duration::from_secs(2);

/// After so long without a chunk that was done, somebody may be gone. Those that are not done are published anew, twice as long later
/// each time, since a chunk that comes twice costs a look; and if all are done, everybody finishes the import. Until then only whoever
/// loaded its last chunk does, since making a dataset's indexes is work for one.
const SILENCE: Duration = Duration::from_secs(20);
const LONGEST_SILENCE: Duration = Duration::from_mins(10);

/// So many chunks are published at a time.
const CHUNKS: usize = 1_000;

/// When an import was published anew by this process, and how long it waits before it does so again.
type Published = HashMap<ImportId, (Instant, Duration)>;

impl Importer {
    /// Tends until it is dropped.
    pub(crate) async fn tend(self) {
        let (mut published, mut patience) = (Published::new(), Patience::default());
        loop {
            let _ = timeout(LOOK, self.0.progress.notified()).await;
            match self.look(&mut published).await {
                Ok(()) => patience.restore(),
                Err(error) => patience.wait(&error).await,
            }
        }
    }

    async fn look(&self, published: &mut Published) -> Result<(), StoreError> {
        let loading = self.0.stores.imports.loading().await?;
        published.retain(|id, _| loading.iter().any(|import| import.id == *id));
        self.loaded_at().retain(|_, at| since(*at) < SILENCE);
        for import in &loading {
            let progress = self.0.stores.imports.progress(import.id).await?;
            let last = progress.last_done_at.unwrap_or(import.begun_at).max(import.begun_at);
            let silence = since(last);
            if progress.chunks >= import.contents.chunks {
                if silence >= SILENCE || self.loaded_at().get(&import.id) == progress.last_done_at.as_ref() {
                    self.finish(import).await?;
                }
                continue;
            }
            let (at, wait) = published.get(&import.id).copied().unwrap_or((Instant::now() - silence, SILENCE));
            if silence >= SILENCE && at.elapsed() >= wait {
                let chunks = self.0.stores.imports.undone(import.id, CHUNKS).await?;
                tracing::info!(import = %import.id, chunks = chunks.len(), "publishing chunks anew that nobody has done");
                self.0.stores.chunks.publish(&chunks).await?;
                published.insert(import.id, (Instant::now(), (wait * 2).min(LONGEST_SILENCE)));
            }
        }
        Ok(())
    }

    async fn finish(&self, import: &Import) -> Result<(), StoreError> {
        let is_there = match &import.target {
            Target::Votes { .. } => true,
            Target::Dataset { dataset, generation } => {
                self.0.datasets.finish(&import.contents.dataset(dataset, *generation)).await?
            }
        };
        let state = if is_there {
            ImportState::Done
        } else {
            ImportState::Failed { problem: "its dataset was removed".to_owned() }
        };
        self.0.stores.imports.end(import.id, &state).await?;
        tracing::info!(import = %import.id, rows = import.contents.rows, "an import is done");
        Ok(())
    }
}

fn since(at: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(UnixMillis::now().0.saturating_sub(at.0)).unwrap_or_default())
}
