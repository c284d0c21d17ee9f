//! The port `Datasets`, on the database of datasets.
//!
//! Each dataset is a collection of the same name, and the collection `_datasets` describes all datasets. The name of a
//! dataset never begins with `_`.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::IndexOptions,
};
use query::{Dataset, DatasetId, DatasetRow, Datasets, StoredField, number_of};
use votes::{HealthDetails, Store, StoreError};

use crate::{
    call::{DUPLICATE_KEY, error_text, is_duplicate_key, with_timeout},
    connect::majority_collection,
    databases::Databases,
    insert::refused_documents,
    query_store::{dataset_field, rows_of},
};

/// The name of the port in errors.
const STORE: &str = "datasets";

/// The name of the collection that describes all datasets.
const CATALOGUE: &str = "_datasets";

/// The datasets of one server.
pub struct MongoDatasets {
    database: Database,
}

impl MongoDatasets {
    /// Creates the port on the database of datasets.
    pub fn new(databases: &Databases) -> Self {
        Self { database: databases.datasets.clone() }
    }

    /// Returns the catalogue. It is read and written with majority: a cached response must not depend on a version that
    /// a new primary does not have.
    fn catalogue(&self) -> Collection<Document> {
        majority_collection(&self.database, CATALOGUE).clone_with_type()
    }

    /// Updates the description of a dataset. Returns whether the dataset exists.
    async fn update(&self, dataset: &Dataset, update: Document) -> Result<bool, StoreError> {
        let updated = self.catalogue().update_one(filter_of(dataset), update).await.map_err(driver_error)?;
        Ok(updated.matched_count > 0)
    }

    async fn exists(&self, dataset: &Dataset) -> Result<bool, StoreError> {
        Ok(self.catalogue().find_one(filter_of(dataset)).await.map_err(driver_error)?.is_some())
    }
}

/// Returns the filter for this dataset. A later dataset of the same name has another generation.
fn filter_of(dataset: &Dataset) -> Document {
    doc! { "_id": dataset.id.as_str(), "generation": whole(dataset.generation) }
}

#[async_trait]
impl Store for MongoDatasets {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        with_timeout(STORE, async {
            // Use the database `admin`: not every compatible server has this command in other databases.
            let admin = self.database.client().database("admin");
            let server = admin.run_command(doc! { "buildInfo": 1 }).await.map_err(driver_error)?;
            Ok(HealthDetails::from([("version", version(&server))]))
        })
        .await
    }
}

#[async_trait]
impl Datasets for MongoDatasets {
    async fn create(&self, id: &DatasetId, columns: Vec<String>) -> Result<Option<Dataset>, StoreError> {
        with_timeout(STORE, async {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            let generation = u64::try_from(now).unwrap_or(0);
            let document = doc! {
                "_id": id.as_str(),
                "generation": whole(generation),
                "columns": &columns,
                "version": whole(generation),
                "is_finished": false,
                "rows": 0_i64,
            };
            match self.catalogue().insert_one(document).await {
                Ok(_) => {}
                Err(error) if is_duplicate_key(&error) => return Ok(None),
                Err(error) => return Err(driver_error(error)),
            }
            let dataset = Dataset::new(id.clone(), generation, columns);
            // Delete rows that an interrupted removal may have left.
            rows_of(&self.database, &dataset).drop().await.map_err(driver_error)?;
            Ok(Some(dataset))
        })
        .await
    }

    async fn load(&self, dataset: &Dataset, rows: Vec<DatasetRow>) -> Result<bool, StoreError> {
        with_timeout(STORE, async {
            if !self.exists(dataset).await? {
                return Ok(false);
            }
            let mut added = rows.len();
            if !rows.is_empty() {
                let documents = rows.iter().map(|row| row_document(dataset, row)).collect::<Result<Vec<_>, _>>()?;
                let collection = majority_collection(&self.database, dataset.id.as_str());
                if let Err(error) = collection.insert_many(documents).ordered(false).await {
                    let refused = refused_documents(error)?;
                    added -= refused.len();
                    if let Some(refused) = refused.iter().find(|refused| refused.code != DUPLICATE_KEY) {
                        return Err(failed(format!("a row was refused: {} (code {})", refused.message, refused.code)));
                    }
                }
            }
            // Raise the version after the rows are stored, so that a query that reads this version also finds the rows.
            self.update(dataset, doc! { "$inc": { "version": 1_i64, "rows": whole(added as u64) } }).await
        })
        .await
    }

    async fn finish(&self, dataset: &Dataset) -> Result<bool, StoreError> {
        if !with_timeout(STORE, self.exists(dataset)).await? {
            return Ok(false);
        }
        let collection = majority_collection(&self.database, dataset.id.as_str());
        // Do not set a time-out: the indexes of a large collection take long.
        for column in 0..dataset.columns.len().min(Dataset::INDEXED_COLUMNS) {
            let slots = [StoredField::Number(column), StoredField::Column(column), StoredField::Row];
            let keys: Document = slots.into_iter().map(|slot| (dataset_field(slot), Bson::from(1))).collect();
            let name = IndexOptions::builder().name(dataset_field(StoredField::Column(column))).build();
            collection
                .create_index(IndexModel::builder().keys(keys).options(name).build())
                .await
                .map_err(driver_error)?;
        }
        // Count the rows again: a worker may have ended after it inserted rows and before it updated the description.
        let rows = collection.estimated_document_count().await.map_err(driver_error)?;
        let finished = doc! { "is_finished": true, "rows": whole(rows) };
        with_timeout(STORE, self.update(dataset, doc! { "$inc": { "version": 1_i64 }, "$set": finished })).await
    }

    async fn describe(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        with_timeout(STORE, async {
            match self.catalogue().find_one(doc! { "_id": id.as_str() }).await.map_err(driver_error)? {
                Some(document) => read_dataset(&document).map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Dataset>, StoreError> {
        with_timeout(STORE, async {
            let mut cursor = self.catalogue().find(doc! {}).sort(doc! { "_id": 1 }).await.map_err(driver_error)?;
            let mut datasets = Vec::new();
            while cursor.advance().await.map_err(driver_error)? {
                let document = cursor.deserialize_current().map_err(driver_error)?;
                datasets.push(read_dataset(&document)?);
            }
            Ok(datasets)
        })
        .await
    }

    async fn remove(&self, id: &DatasetId) -> Result<bool, StoreError> {
        with_timeout(STORE, async {
            let removed = self.catalogue().delete_one(doc! { "_id": id.as_str() }).await.map_err(driver_error)?;
            if removed.deleted_count == 0 {
                return Ok(false);
            }
            self.database.collection::<Document>(id.as_str()).drop().await.map_err(driver_error)?;
            Ok(true)
        })
        .await
    }
}

/// Returns the server's version. `FerretDB` reports its own version, and the version of `MongoDB` that it is compatible
/// with.
fn version(build: &Document) -> String {
    let text = |field: &str| build.get_str(field).ok();
    match (text("ferretdbVersion"), text("version")) {
        (Some(version), _) => format!("FerretDB {version}"),
        (None, Some(version)) => format!("MongoDB {version}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn read_dataset(document: &Document) -> Result<Dataset, StoreError> {
    parse_dataset(document).ok_or_else(|| failed(format!("{document} does not describe a dataset")))
}

fn parse_dataset(document: &Document) -> Option<Dataset> {
    let number = |field: &str| document.get_i64(field).ok().and_then(|number| u64::try_from(number).ok());
    let columns = document.get_array("columns").ok()?.iter().map(|name| name.as_str().map(str::to_owned));
    Some(Dataset {
        id: document.get_str("_id").ok()?.parse().ok()?,
        generation: number("generation")?,
        columns: columns.collect::<Option<_>>()?,
        version: number("version")?,
        is_finished: document.get_bool("is_finished").ok()?,
        rows: number("rows")?,
    })
}

/// Returns the document of a row. It has a text for each cell, and also a number if the text is one.
fn row_document(dataset: &Dataset, row: &DatasetRow) -> Result<RawDocumentBuf, StoreError> {
    if row.cells.len() != dataset.columns.len() {
        let (cells, columns) = (row.cells.len(), dataset.columns.len());
        return Err(failed(format!("row {} has {cells} cells for {columns} columns", row.number)));
    }
    let mut document = doc! { "_id": whole(row.number) };
    for (column, cell) in row.cells.iter().enumerate() {
        document.insert(dataset_field(StoredField::Column(column)), cell);
        if let Some(number) = number_of(cell) {
            document.insert(dataset_field(StoredField::Number(column)), number);
        }
    }
    RawDocumentBuf::try_from(&document).map_err(|error| failed(error.to_string()))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver_error(error: mongodb::error::Error) -> StoreError {
    failed(error_text(&error))
}

fn failed(problem: String) -> StoreError {
    StoreError::new(STORE, problem)
}
