//! The port `Datasets`, in `datasets.db`.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use query::{Dataset, DatasetId, DatasetRow, Datasets, StoredField, number_of};
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};
use votes::{HealthDetails, Store, StoreError};

use crate::{
    database::{Readers, write_probe},
    query_store::{dataset_column, rows_table},
    writer::WriteExecutor,
};

pub(super) struct EmbeddedDatasets {
    readers: Arc<Readers>,
    writer: WriteExecutor,
}

impl EmbeddedDatasets {
    pub(super) fn new(readers: Arc<Readers>, writer: WriteExecutor) -> Self {
        Self { readers, writer }
    }
}

#[async_trait]
impl Store for EmbeddedDatasets {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.writer.run(write_probe).await?;
        Ok(HealthDetails::new())
    }
}

#[async_trait]
impl Datasets for EmbeddedDatasets {
    async fn create(&self, id: &DatasetId, columns: Vec<String>) -> Result<Option<Dataset>, StoreError> {
        let id = id.clone();
        self.writer.run(move |db| create(db, &id, &columns)).await
    }

    async fn load(&self, dataset: &Dataset, rows: Vec<DatasetRow>) -> Result<bool, StoreError> {
        if let Some(row) = rows.iter().find(|row| row.cells.len() != dataset.columns.len()) {
            let (number, cells, columns) = (row.number, row.cells.len(), dataset.columns.len());
            let problem = format!("row {number} has {cells} cells for {columns} columns");
            return Err(StoreError::new("datasets", problem));
        }
        let dataset = dataset.clone();
        self.writer.run(move |db| load(db, &dataset, &rows)).await
    }

    async fn finish(&self, dataset: &Dataset) -> Result<bool, StoreError> {
        let dataset = dataset.clone();
        self.writer.run(move |db| finish(db, &dataset)).await
    }

    async fn describe(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        let id = id.clone();
        self.readers.read(move |db| describe(db, &id)).await
    }

    async fn list(&self) -> Result<Vec<Dataset>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM datasets ORDER BY name");
        self.readers.read(move |db| db.prepare(&sql)?.query_map([], read_dataset)?.collect()).await
    }

    async fn remove(&self, id: &DatasetId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.writer.run(move |db| remove(db, &id)).await
    }
}

const COLUMNS: &str = "name, generation, columns, version, is_finished, rows";

fn read_dataset(row: &Row<'_>) -> rusqlite::Result<Dataset> {
    let unreadable =
        |index: usize, problem: String| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, problem.into());
    let columns = serde_json::from_str(row.get_ref(2)?.as_str()?);
    Ok(Dataset {
        id: row.get_ref(0)?.as_str()?.parse().map_err(|problem: &str| unreadable(0, problem.to_owned()))?,
        generation: row.get(1)?,
        columns: columns.map_err(|problem| unreadable(2, problem.to_string()))?,
        version: row.get(3)?,
        is_finished: row.get(4)?,
        rows: row.get(5)?,
    })
}

fn describe(db: &Connection, id: &DatasetId) -> rusqlite::Result<Option<Dataset>> {
    let sql = format!("SELECT {COLUMNS} FROM datasets WHERE name = ?1");
    db.prepare_cached(&sql)?.query_row([id.as_str()], read_dataset).optional()
}

fn create(db: &Connection, id: &DatasetId, columns: &[String]) -> rusqlite::Result<Option<Dataset>> {
    if describe(db, id)?.is_some() {
        return Ok(None);
    }
    let last: u64 = db.query_row("SELECT value FROM meta WHERE key = 'last_version'", [], |row| row.get(0))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let generation = u64::try_from(now).unwrap_or(0).max(last + 1);
    let cells = (0..columns.len()).map(|column| {
        let (text, number) = (dataset_column(StoredField::Column(column)), dataset_column(StoredField::Number(column)));
        format!(", {text} TEXT NOT NULL, {number} REAL")
    });
    let table = rows_table(generation);
    db.execute_batch(&format!("CREATE TABLE {table} (row INTEGER PRIMARY KEY{}) STRICT", cells.collect::<String>()))?;
    let names =
        serde_json::to_string(columns).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    db.execute("INSERT INTO datasets VALUES (?1, ?2, ?3, ?2, 0, 0)", params![id.as_str(), generation, names])?;
    describe(db, id)
}

/// Returns whether this dataset exists. A later dataset of the same name has another generation.
fn exists(db: &Connection, dataset: &Dataset) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM datasets WHERE name = ?1 AND generation = ?2";
    let found = db.prepare_cached(sql)?.query_row(params![dataset.id.as_str(), dataset.generation], |_| Ok(()));
    Ok(found.optional()?.is_some())
}

fn load(db: &Connection, dataset: &Dataset, rows: &[DatasetRow]) -> rusqlite::Result<bool> {
    if !exists(db, dataset)? {
        return Ok(false);
    }
    let placeholders = ", ?".repeat(dataset.columns.len() * 2);
    let sql = format!("INSERT OR IGNORE INTO {} VALUES (?{placeholders})", rows_table(dataset.generation));
    let mut insert = db.prepare_cached(&sql)?;
    let mut added = 0;
    for row in rows {
        insert.raw_bind_parameter(1, row.number)?;
        for (index, cell) in row.cells.iter().enumerate() {
            insert.raw_bind_parameter(2 + 2 * index, cell)?;
            insert.raw_bind_parameter(3 + 2 * index, number_of(cell))?;
        }
        added += insert.raw_execute()?;
    }
    let sql = "UPDATE datasets SET rows = rows + ?2, version = version + 1 WHERE name = ?1";
    db.prepare_cached(sql)?.execute(params![dataset.id.as_str(), added as u64])?;
    Ok(true)
}

fn finish(db: &Connection, dataset: &Dataset) -> rusqlite::Result<bool> {
    if !exists(db, dataset)? {
        return Ok(false);
    }
    let table = rows_table(dataset.generation);
    for column in 0..dataset.columns.len().min(Dataset::INDEXED_COLUMNS) {
        let (text, number) = (dataset_column(StoredField::Column(column)), dataset_column(StoredField::Number(column)));
        db.execute_batch(&format!("CREATE INDEX IF NOT EXISTS {table}_{text} ON {table} ({number}, {text})"))?;
    }
    db.execute("UPDATE datasets SET is_finished = 1, version = version + 1 WHERE name = ?1", [dataset.id.as_str()])?;
    Ok(true)
}

fn remove(db: &Connection, id: &DatasetId) -> rusqlite::Result<bool> {
    let Some(dataset) = describe(db, id)? else { return Ok(false) };
    db.execute_batch(&format!("DROP TABLE {}", rows_table(dataset.generation)))?;
    db.execute("DELETE FROM datasets WHERE name = ?1", [id.as_str()])?;
    let sql = "UPDATE meta SET value = max(value, ?1) WHERE key = 'last_version'";
    db.execute(sql, [dataset.version])?;
    Ok(true)
}
