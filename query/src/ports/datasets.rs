//! The port through which datasets are written. The [`QueryStore`](super::QueryStore) reads them.

use async_trait::async_trait;
use votes::{Store, StoreError};

use crate::dataset::{Dataset, DatasetId, DatasetRow};

/// The store of datasets, for writing. Any number of workers may load rows of the same dataset at the same time.
#[async_trait]
pub trait Datasets: Store {
    /// Creates an empty dataset. Returns `None` if a dataset of this name exists.
    async fn create(&self, id: &DatasetId, columns: Vec<String>) -> Result<Option<Dataset>, StoreError>;

    /// Adds rows durably, and raises the version.
    ///
    /// A row whose number already exists is not changed, so loading a chunk twice has the same effect as loading it
    /// once.
    ///
    /// Returns whether the dataset exists. A dataset of the same name with another generation is a different dataset.
    async fn load(&self, dataset: &Dataset, rows: Vec<DatasetRow>) -> Result<bool, StoreError>;

    /// Marks the dataset as finished, and creates its indexes. Returns whether the dataset exists.
    async fn finish(&self, dataset: &Dataset) -> Result<bool, StoreError>;

    /// Returns the current state of the dataset with this name.
    async fn describe(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError>;

    /// Returns all datasets, sorted by name.
    async fn list(&self) -> Result<Vec<Dataset>, StoreError>;

    /// Deletes a dataset with its rows. Returns whether the dataset existed.
    async fn remove(&self, id: &DatasetId) -> Result<bool, StoreError>;
}
