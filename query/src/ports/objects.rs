//! The object store has the files of imports. A file may be larger than the memory.

use std::ops::Range;

use async_trait::async_trait;
use votes::{Store, StoreError};

/// An object store.
#[async_trait]
pub trait Objects: Store {
    /// Begins to write an object. The object exists only after its writer has [finished](ObjectWriter::finish).
    async fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// Returns a range of the bytes of an object, or `None` if the object does not exist.
    ///
    /// # Errors
    /// An error of the store. A range that ends after the end of the object is an error, too.
    async fn read(&self, name: &str, bytes: Range<u64>) -> Result<Option<Vec<u8>>, StoreError>;

    /// Deletes an object if it exists.
    async fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// Writes one object from its beginning to its end. A writer that is dropped before it has finished leaves no object.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Adds bytes. Waits while too many earlier bytes are not yet stored.
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Ends the object. After `Ok`, the object is stored durably.
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;
}
