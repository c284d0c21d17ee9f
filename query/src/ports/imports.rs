//! The store of imports and their progress, and the queue of their chunks.

use async_trait::async_trait;
use votes::{Store, StoreError, UnixMillis};

use crate::import::{Chunk, Import, ImportId, ImportState, Loaded};

/// The store of imports and their progress.
#[async_trait]
pub trait Imports: Store {
    /// Durably stores an import with the state `Loading`, and its chunks.
    async fn create(&self, import: &Import, chunks: &[Chunk]) -> Result<(), StoreError>;

    /// Returns an import.
    async fn find(&self, id: ImportId) -> Result<Option<Import>, StoreError>;

    /// Returns the imports that are loading, oldest first.
    async fn loading(&self) -> Result<Vec<Import>, StoreError>;

    /// Returns the progress of an import.
    async fn progress(&self, id: ImportId) -> Result<ImportProgress, StoreError>;

    /// Returns whether a chunk is done.
    async fn is_done(&self, chunk: &Chunk) -> Result<bool, StoreError>;

    /// Marks a chunk as done, and stores how many of its rows were loaded. If the chunk is done already, nothing
    /// changes.
    async fn record_done(&self, chunk: &Chunk, at: UnixMillis, loaded: &Loaded) -> Result<(), StoreError>;

    /// Returns the first chunks that are not done, at most `max`, sorted by number.
    async fn pending_chunks(&self, id: ImportId, max: usize) -> Result<Vec<Chunk>, StoreError>;

    /// Stores the final state of an import. If the import has a final state already, nothing changes.
    async fn end(&self, id: ImportId, state: &ImportState) -> Result<(), StoreError>;
}

/// The progress of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// The number of chunks that are done.
    pub chunks: u32,
    /// The time at which the last chunk was done.
    pub last_done_at: Option<UnixMillis>,
    /// How many rows of the chunks were loaded.
    pub loaded: Loaded,
}

impl ImportProgress {
    /// Adds a chunk that is done. The caller must add the chunks in the order of their numbers.
    pub fn add(&mut self, done_at: UnixMillis, loaded: Loaded) {
        self.chunks += 1;
        self.last_done_at = self.last_done_at.max(Some(done_at));
        self.loaded.add(loaded);
    }
}

/// The queue of chunks for the workers.
#[async_trait]
pub trait ChunkQueue: Store {
    /// Durably adds chunks to the queue. [`Imports::create`] must have stored them. A chunk that is published again may
    /// be delivered again.
    async fn publish(&self, chunks: &[Chunk]) -> Result<(), StoreError>;

    /// Waits for a chunk. A worker takes one chunk at a time.
    ///
    /// Until the worker [acknowledges](Self::acknowledge) the chunk, the queue may deliver the chunk again: to the same
    /// worker or, if this worker ends, to another worker.
    async fn next(&self) -> Result<Chunk, StoreError>;

    /// Acknowledges the chunk that was delivered last. The worker must first [record](Imports::record_done) the chunk
    /// as done. Then the queue does not deliver this chunk again.
    async fn acknowledge(&self) -> Result<(), StoreError>;
}
