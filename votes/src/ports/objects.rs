//! Where files are kept that are larger than memory.

use std::ops::Range;

use async_trait::async_trait;

use super::Store;
use crate::StoreError;

/// An object store.
#[async_trait]
pub trait Objects: Store {
    /// Begins to write an object. It is there, whole, once its writer has [finished](ObjectWriter::finish), and not before.
    async fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError>;

    /// A part of an object. `None` if there is no such object.
    ///
    /// # Errors
    /// Also if the object ends before that part does.
    async fn read(&self, name: &str, bytes: Range<u64>) -> Result<Option<Vec<u8>>, StoreError>;

    /// Deletes an object, if it is there.
    async fn remove(&self, name: &str) -> Result<(), StoreError>;
}

/// Writes one object from its beginning to its end. One that is dropped before it has finished leaves no object.
#[async_trait]
pub trait ObjectWriter: Send {
    /// Adds bytes. Waits while too many of those before are still on their way.
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Ends the object. When this returns `Ok`, it is stored for good.
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;
}
