//! The ports `Imports` and `ChunkQueue`, in `datasets.db`. The queue consists of the chunks that are not done. It
//! returns the first of them until this chunk is recorded as done.

use std::sync::Arc;

use async_trait::async_trait;
use query::{
    ChunkQueue, ImportProgress, Imports,
    import::{Chunk, Import, ImportId, ImportState, Loaded},
};
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use votes::{HealthDetails, Store, StoreError, UnixMillis};

use crate::{
    database::{Readers, write_probe},
    writer::WriteExecutor,
};

pub(super) struct EmbeddedImports {
    readers: Arc<Readers>,
    writer: WriteExecutor,
    published: Notify,
}

impl EmbeddedImports {
    pub(super) fn new(readers: Arc<Readers>, writer: WriteExecutor) -> Self {
        Self { readers, writer, published: Notify::new() }
    }
}

#[async_trait]
impl Store for EmbeddedImports {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.writer.run(write_probe).await?;
        Ok(HealthDetails::new())
    }
}

#[async_trait]
impl Imports for EmbeddedImports {
    async fn create(&self, import: &Import, chunks: &[Chunk]) -> Result<(), StoreError> {
        let (import, chunks) = (import.clone(), chunks.to_vec());
        self.writer.run(move |db| create(db, &import, &chunks)).await
    }

    async fn find(&self, id: ImportId) -> Result<Option<Import>, StoreError> {
        self.readers.read(move |db| find(db, id)).await
    }

    async fn loading(&self) -> Result<Vec<Import>, StoreError> {
        let sql = "SELECT import FROM imports WHERE is_loading ORDER BY id";
        self.readers.read(move |db| db.prepare(sql)?.query_map([], |row| parse_json(row, 0))?.collect()).await
    }

    async fn progress(&self, id: ImportId) -> Result<ImportProgress, StoreError> {
        let read = move |db: &Connection| {
            let sql = "SELECT done_at, loaded FROM chunks WHERE import = ?1 AND done_at IS NOT NULL ORDER BY number";
            let mut select = db.prepare(sql)?;
            let mut rows = select.query([id.to_string()])?;
            let mut progress = ImportProgress::default();
            while let Some(row) = rows.next()? {
                progress.add(UnixMillis(row.get(0)?), parse_json(row, 1)?);
            }
            Ok(progress)
        };
        self.readers.read(read).await
    }

    async fn is_done(&self, chunk: &Chunk) -> Result<bool, StoreError> {
        let (import, number) = (chunk.import.to_string(), chunk.number);
        let sql = "SELECT 1 FROM chunks WHERE import = ?1 AND number = ?2 AND done_at IS NOT NULL";
        self.readers.read(move |db| db.prepare(sql)?.exists(params![import, number])).await
    }

    async fn record_done(&self, chunk: &Chunk, at: UnixMillis, loaded: &Loaded) -> Result<(), StoreError> {
        let (import, number, loaded) = (chunk.import.to_string(), chunk.number, loaded.clone());
        let sql = "UPDATE chunks SET done_at = ?3, loaded = ?4 WHERE import = ?1 AND number = ?2 AND done_at IS NULL";
        self.writer.run(move |db| db.execute(sql, params![import, number, at.0, to_json(&loaded)?]).map(drop)).await
    }

    async fn pending_chunks(&self, id: ImportId, max: usize) -> Result<Vec<Chunk>, StoreError> {
        let sql = "SELECT chunk FROM chunks WHERE import = ?1 AND done_at IS NULL ORDER BY number LIMIT ?2";
        let read = move |db: &Connection| {
            db.prepare(sql)?.query_map(params![id.to_string(), max as u64], |row| parse_json(row, 0))?.collect()
        };
        self.readers.read(read).await
    }

    async fn end(&self, id: ImportId, state: &ImportState) -> Result<(), StoreError> {
        let state = state.clone();
        self.writer.run(move |db| end(db, id, &state)).await
    }
}

#[async_trait]
impl ChunkQueue for EmbeddedImports {
    async fn publish(&self, _: &[Chunk]) -> Result<(), StoreError> {
        // `create` has stored the chunks, so only a waiting worker has to be woken.
        self.published.notify_one();
        Ok(())
    }

    async fn next(&self) -> Result<Chunk, StoreError> {
        let sql = "SELECT chunk FROM chunks JOIN imports ON imports.id = chunks.import
            WHERE imports.is_loading AND done_at IS NULL ORDER BY chunks.import, number LIMIT 1";
        loop {
            let first =
                move |db: &Connection| db.prepare_cached(sql)?.query_row([], |row| parse_json(row, 0)).optional();
            match self.readers.read(first).await? {
                Some(chunk) => return Ok(chunk),
                None => self.published.notified().await,
            }
        }
    }

    async fn acknowledge(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn create(db: &Connection, import: &Import, chunks: &[Chunk]) -> rusqlite::Result<()> {
    let id = import.id.to_string();
    db.execute("INSERT INTO imports VALUES (?1, ?2, 1)", params![id, to_json(import)?])?;
    let mut insert = db.prepare("INSERT INTO chunks VALUES (?1, ?2, ?3, NULL, NULL)")?;
    for chunk in chunks {
        insert.execute(params![id, chunk.number, to_json(chunk)?])?;
    }
    Ok(())
}

fn find(db: &Connection, id: ImportId) -> rusqlite::Result<Option<Import>> {
    let sql = "SELECT import FROM imports WHERE id = ?1";
    db.prepare_cached(sql)?.query_row([id.to_string()], |row| parse_json(row, 0)).optional()
}

fn end(db: &Connection, id: ImportId, state: &ImportState) -> rusqlite::Result<()> {
    let Some(mut import) = find(db, id)? else { return Ok(()) };
    if import.state == ImportState::Loading {
        import.state = state.clone();
        let sql = "UPDATE imports SET import = ?2, is_loading = 0 WHERE id = ?1";
        db.execute(sql, params![id.to_string(), to_json(&import)?])?;
    }
    Ok(())
}

fn parse_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let unreadable =
        |error: serde_json::Error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into());
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(unreadable)
}

fn to_json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
