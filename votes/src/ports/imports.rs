//! Imports: what is noted of them, and how their chunks come to workers.

use async_trait::async_trait;

use super::Store;
use crate::{
    StoreError, UnixMillis,
    import::{Chunk, Import, ImportId, ImportState, Loaded},
};

/// What is known of imports.
#[async_trait]
pub trait Imports: Store {
    /// Notes an import that is loading and its chunks, durably.
    async fn begin(&self, import: &Import, chunks: &[Chunk]) -> Result<(), StoreError>;

    /// An import.
    async fn find(&self, id: ImportId) -> Result<Option<Import>, StoreError>;

    /// The imports that are loading, oldest first.
    async fn loading(&self) -> Result<Vec<Import>, StoreError>;

    /// How far an import is.
    async fn progress(&self, id: ImportId) -> Result<ImportProgress, StoreError>;

    /// Whether it is known what became of a chunk.
    async fn is_done(&self, chunk: &Chunk) -> Result<bool, StoreError>;

    /// Notes what became of a chunk. What was noted first stands.
    async fn done(&self, chunk: &Chunk, at: UnixMillis, loaded: &Loaded) -> Result<(), StoreError>;

    /// At most so many chunks that are not done, by number.
    async fn undone(&self, id: ImportId, most: usize) -> Result<Vec<Chunk>, StoreError>;

    /// Notes how an import ended. What was noted first stands.
    async fn end(&self, id: ImportId, state: &ImportState) -> Result<(), StoreError>;
}

/// How far an import is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportProgress {
    /// How many chunks are done.
    pub chunks: u32,
    /// When the last one was.
    pub last_done_at: Option<UnixMillis>,
    /// What became of their rows.
    pub loaded: Loaded,
}

impl ImportProgress {
    /// Adds a chunk, in the order of their numbers.
    pub fn add(&mut self, done_at: UnixMillis, loaded: Loaded) {
        self.chunks += 1;
        self.last_done_at = self.last_done_at.max(Some(done_at));
        self.loaded.add(loaded);
    }
}

/// The way of chunks to workers: each comes to one of them.
#[async_trait]
pub trait ChunkQueue: Store {
    /// Puts chunks on the way, for good. One that is put there twice comes twice.
    async fn publish(&self, chunks: &[Chunk]) -> Result<(), StoreError>;

    /// Waits for a chunk. Until it is [settled](Self::settle) it may come again, to this worker or, after this one's end, to another.
    /// Only one chunk at a time is taken.
    async fn next(&self) -> Result<Chunk, StoreError>;

    /// Says that the chunk which came last need not come again.
    async fn settle(&self) -> Result<(), StoreError>;
}
