//! Datasets, in a database of their own: a collection each, of the dataset's name, and the collection `_datasets` that describes
//! them. A dataset's name never begins with `_`.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use mongodb::{
    Collection, Database, IndexModel,
    bson::{Bson, Document, RawDocumentBuf, doc},
    options::IndexOptions,
};
use votes::{
    Dataset, DatasetId, DatasetRow, Datasets, Facts, Store, StoreError,
    query::{Slot, number_of},
};

use super::{
    archive::{Databases, dataset_field, rows_of},
    bounded,
    connect::counted,
    insert::{DUPLICATE_KEY, refused},
    problem,
};

/// What the port is called in errors.
const STORE: &str = "datasets";

const CATALOGUE: &str = "_datasets";

pub(crate) struct MongoDatasets {
    database: Database,
}

impl MongoDatasets {
    pub(crate) fn new(databases: &Databases) -> Self {
        Self { database: databases.datasets.clone() }
    }

    /// With majority, from the primary: a version that could be forgotten proves nothing.
    fn catalogue(&self) -> Collection<Document> {
        counted(&self.database, CATALOGUE).clone_with_type()
    }

    /// Changes what is said of a dataset. Whether it was there.
    async fn change(&self, dataset: &Dataset, change: Document) -> Result<bool, StoreError> {
        let changed = self.catalogue().update_one(is(dataset), change).await.map_err(driver)?;
        Ok(changed.matched_count > 0)
    }

    async fn is_there(&self, dataset: &Dataset) -> Result<bool, StoreError> {
        Ok(self.catalogue().find_one(is(dataset)).await.map_err(driver)?.is_some())
    }
}

/// This dataset, and none that was made later.
fn is(dataset: &Dataset) -> Document {
    doc! { "_id": dataset.id.as_str(), "generation": whole(dataset.generation) }
}

#[async_trait]
impl Store for MongoDatasets {
    async fn check(&self) -> Result<Facts, StoreError> {
        bounded(STORE, async {
            // Of the admin database: not every server that speaks the protocol knows the command elsewhere.
            let admin = self.database.client().database("admin");
            let server = admin.run_command(doc! { "buildInfo": 1 }).await.map_err(driver)?;
            Ok(Facts::from([("version", version(&server))]))
        })
        .await
    }
}

#[async_trait]
impl Datasets for MongoDatasets {
    async fn create(&self, id: &DatasetId, columns: Vec<String>) -> Result<Option<Dataset>, StoreError> {
        bounded(STORE, async {
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
                Err(error) if super::book::is_duplicate(&error) => return Ok(None),
                Err(error) => return Err(driver(error)),
            }
            let dataset = Dataset::new(id.clone(), generation, columns);
            // What a removal left that was cut short.
            rows_of(&self.database, &dataset).drop().await.map_err(driver)?;
            Ok(Some(dataset))
        })
        .await
    }

    async fn load(&self, dataset: &Dataset, rows: Vec<DatasetRow>) -> Result<bool, StoreError> {
        bounded(STORE, async {
            if !self.is_there(dataset).await? {
                return Ok(false);
            }
            let mut added = rows.len();
            if !rows.is_empty() {
                let documents = rows.iter().map(|row| of_row(dataset, row)).collect::<Result<Vec<_>, _>>()?;
                let collection = counted(&self.database, dataset.id.as_str());
                if let Err(error) = collection.insert_many(documents).ordered(false).await {
                    let refused = refused(error)?;
                    added -= refused.len();
                    if let Some(refused) = refused.iter().find(|refused| refused.code != DUPLICATE_KEY) {
                        return Err(failed(format!("a row is refused: {} (code {})", refused.message, refused.code)));
                    }
                }
            }
            // After the rows: who reads this version has them.
            self.change(dataset, doc! { "$inc": { "version": 1_i64, "rows": whole(added as u64) } }).await
        })
        .await
    }

    async fn finish(&self, dataset: &Dataset) -> Result<bool, StoreError> {
        if !bounded(STORE, self.is_there(dataset)).await? {
            return Ok(false);
        }
        let collection = counted(&self.database, dataset.id.as_str());
        // Not bounded: a large collection takes its time.
        for column in 0..dataset.columns.len().min(Dataset::INDEXED_COLUMNS) {
            let slots = [Slot::Number(column), Slot::Column(column), Slot::Row];
            let keys: Document = slots.into_iter().map(|slot| (dataset_field(slot), Bson::from(1))).collect();
            let name = IndexOptions::builder().name(dataset_field(Slot::Column(column))).build();
            collection.create_index(IndexModel::builder().keys(keys).options(name).build()).await.map_err(driver)?;
        }
        // Workers that ended between a batch and its count have left that wrong.
        let rows = collection.estimated_document_count().await.map_err(driver)?;
        let finished = doc! { "is_finished": true, "rows": whole(rows) };
        bounded(STORE, self.change(dataset, doc! { "$inc": { "version": 1_i64 }, "$set": finished })).await
    }

    async fn describe(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        bounded(STORE, async {
            match self.catalogue().find_one(doc! { "_id": id.as_str() }).await.map_err(driver)? {
                Some(document) => read(&document).map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Dataset>, StoreError> {
        bounded(STORE, async {
            let mut cursor = self.catalogue().find(doc! {}).sort(doc! { "_id": 1 }).await.map_err(driver)?;
            let mut datasets = Vec::new();
            while cursor.advance().await.map_err(driver)? {
                let document = cursor.deserialize_current().map_err(driver)?;
                datasets.push(read(&document)?);
            }
            Ok(datasets)
        })
        .await
    }

    async fn remove(&self, id: &DatasetId) -> Result<bool, StoreError> {
        bounded(STORE, async {
            let removed = self.catalogue().delete_one(doc! { "_id": id.as_str() }).await.map_err(driver)?;
            if removed.deleted_count == 0 {
                return Ok(false);
            }
            self.database.collection::<Document>(id.as_str()).drop().await.map_err(driver)?;
            Ok(true)
        })
        .await
    }
}

/// The version that a server tells of itself. `FerretDB` tells its own beside that of the `MongoDB` that it passes for.
fn version(build: &Document) -> String {
    let text = |field: &str| build.get_str(field).ok();
    match (text("ferretdbVersion"), text("version")) {
        (Some(version), _) => format!("FerretDB {version}"),
        (None, Some(version)) => format!("MongoDB {version}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn read(document: &Document) -> Result<Dataset, StoreError> {
    described(document).ok_or_else(|| failed(format!("{document} describes no dataset")))
}

fn described(document: &Document) -> Option<Dataset> {
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

fn of_row(dataset: &Dataset, row: &DatasetRow) -> Result<RawDocumentBuf, StoreError> {
    if row.cells.len() != dataset.columns.len() {
        let (cells, columns) = (row.cells.len(), dataset.columns.len());
        return Err(failed(format!("row {} has {cells} cells for {columns} columns", row.number)));
    }
    let mut document = doc! { "_id": whole(row.number) };
    for (column, cell) in row.cells.iter().enumerate() {
        document.insert(dataset_field(Slot::Column(column)), cell);
        if let Some(number) = number_of(cell) {
            document.insert(dataset_field(Slot::Number(column)), number);
        }
    }
    RawDocumentBuf::try_from(&document).map_err(|error| failed(error.to_string()))
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver(error: mongodb::error::Error) -> StoreError {
    failed(problem(&error))
}

fn failed(problem: String) -> StoreError {
    StoreError::new(STORE, problem)
}
