//! The port `Imports`, on the database of datasets.

use async_trait::async_trait;
use mongodb::{
    Collection, Database,
    bson::{Bson, Document, deserialize_from_document, doc, serialize_to_bson, serialize_to_document},
    error::Error,
};
use query::{
    ImportProgress, Imports,
    import::{Chunk, Import, ImportId, ImportState, Loaded},
};
use votes::{HealthDetails, Store, StoreError, UnixMillis};

use crate::{
    call::{DUPLICATE_KEY, error_text, is_duplicate_key, with_timeout},
    connect::majority_collection,
    databases::Databases,
    insert::refused_documents,
};

/// The name of the port in errors.
const STORE: &str = "imports";

const IMPORTS: &str = "_imports";
const CHUNKS: &str = "_import_chunks";

/// The maximum number of chunks that one command inserts.
const MAX_INSERTED_CHUNKS: usize = 1_000;

/// The imports and their chunks in one database.
pub struct MongoImports {
    database: Database,
}

impl MongoImports {
    /// Creates the port on the database of datasets.
    pub fn new(databases: &Databases) -> Self {
        Self { database: databases.datasets.clone() }
    }

    fn imports(&self) -> Collection<Document> {
        majority_collection(&self.database, IMPORTS).clone_with_type()
    }

    fn chunks(&self) -> Collection<Document> {
        majority_collection(&self.database, CHUNKS).clone_with_type()
    }
}

#[async_trait]
impl Store for MongoImports {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        with_timeout(STORE, async {
            self.database.run_command(doc! { "ping": 1 }).await.map_err(driver_error)?;
            Ok(HealthDetails::new())
        })
        .await
    }
}

#[async_trait]
impl Imports for MongoImports {
    async fn create(&self, import: &Import, chunks: &[Chunk]) -> Result<(), StoreError> {
        // Insert the chunks first, so that an import that exists has all its chunks.
        for chunks in chunks.chunks(MAX_INSERTED_CHUNKS) {
            let documents = chunks.iter().map(chunk_document).collect::<Result<Vec<_>, _>>()?;
            with_timeout(STORE, async {
                ignore_existing(self.chunks().insert_many(documents).ordered(false).await.map(drop))
            })
            .await?;
        }
        let mut document = serialize_to_document(import).map_err(failed)?;
        document.insert("_id", import.id.to_string());
        with_timeout(STORE, async { ignore_existing(self.imports().insert_one(document).await.map(drop)) }).await
    }

    async fn find(&self, id: ImportId) -> Result<Option<Import>, StoreError> {
        with_timeout(STORE, async {
            let found = self.imports().find_one(doc! { "_id": id.to_string() }).await.map_err(driver_error)?;
            found.map(read_import).transpose()
        })
        .await
    }

    async fn loading(&self) -> Result<Vec<Import>, StoreError> {
        with_timeout(STORE, async {
            let filter = doc! { "state.state": "loading" };
            let mut found = self.imports().find(filter).sort(doc! { "_id": 1 }).await.map_err(driver_error)?;
            let mut imports = Vec::new();
            while found.advance().await.map_err(driver_error)? {
                imports.push(read_import(found.deserialize_current().map_err(driver_error)?)?);
            }
            Ok(imports)
        })
        .await
    }

    async fn progress(&self, id: ImportId) -> Result<ImportProgress, StoreError> {
        with_timeout(STORE, async {
            let done = chunks_of(id, true);
            let mut found = self.chunks().find(done).sort(doc! { "_id": 1 }).await.map_err(driver_error)?;
            let mut progress = ImportProgress::default();
            while found.advance().await.map_err(driver_error)? {
                let document: Document = found.deserialize_current().map_err(driver_error)?;
                let loaded = document.get_document("loaded").map_err(failed)?.clone();
                let at = document.get_i64("done_at").map_err(failed)?;
                progress.add(UnixMillis(at), deserialize_from_document(loaded).map_err(failed)?);
            }
            Ok(progress)
        })
        .await
    }

    async fn is_done(&self, chunk: &Chunk) -> Result<bool, StoreError> {
        with_timeout(STORE, async {
            let done = doc! { "_id": chunk_id(chunk.import, chunk.number), "done_at": { "$exists": true } };
            Ok(self.chunks().find_one(done).await.map_err(driver_error)?.is_some())
        })
        .await
    }

    async fn record_done(&self, chunk: &Chunk, at: UnixMillis, loaded: &Loaded) -> Result<(), StoreError> {
        let loaded = serialize_to_bson(loaded).map_err(failed)?;
        with_timeout(STORE, async {
            let pending = doc! { "_id": chunk_id(chunk.import, chunk.number), "done_at": { "$exists": false } };
            let done = doc! { "$set": { "done_at": at.0, "loaded": loaded } };
            self.chunks().update_one(pending, done).await.map_err(driver_error)?;
            Ok(())
        })
        .await
    }

    async fn pending_chunks(&self, id: ImportId, max: usize) -> Result<Vec<Chunk>, StoreError> {
        with_timeout(STORE, async {
            let max = i64::try_from(max).unwrap_or(i64::MAX);
            let chunks = self.chunks();
            let found = chunks.find(chunks_of(id, false)).sort(doc! { "_id": 1 }).limit(max);
            let mut found = found.await.map_err(driver_error)?;
            let mut pending = Vec::new();
            while found.advance().await.map_err(driver_error)? {
                let document: Document = found.deserialize_current().map_err(driver_error)?;
                let chunk = document.get_document("chunk").map_err(failed)?.clone();
                pending.push(deserialize_from_document(chunk).map_err(failed)?);
            }
            Ok(pending)
        })
        .await
    }

    async fn end(&self, id: ImportId, state: &ImportState) -> Result<(), StoreError> {
        let state = serialize_to_bson(state).map_err(failed)?;
        with_timeout(STORE, async {
            let loading = doc! { "_id": id.to_string(), "state.state": "loading" };
            self.imports().update_one(loading, doc! { "$set": { "state": state } }).await.map_err(driver_error)?;
            Ok(())
        })
        .await
    }
}

/// Returns the `_id` of a chunk. The ids of an import's chunks sort in the order of the file.
fn chunk_id(import: ImportId, number: u32) -> String {
    format!("{import}/{number:010}")
}

/// Returns the filter for the chunks of an import that are done, or not done.
fn chunks_of(import: ImportId, is_done: bool) -> Document {
    // The range has all ids that begin with the import and '/', because the next character after '/' is '0'.
    let range = doc! { "$gt": format!("{import}/"), "$lt": format!("{import}0") };
    doc! { "_id": range, "done_at": { "$exists": is_done } }
}

fn chunk_document(chunk: &Chunk) -> Result<Document, StoreError> {
    Ok(doc! { "_id": chunk_id(chunk.import, chunk.number), "chunk": serialize_to_bson(chunk).map_err(failed)? })
}

fn read_import(mut document: Document) -> Result<Import, StoreError> {
    let id = document.remove("_id").unwrap_or(Bson::Null);
    document.insert("id", id);
    deserialize_from_document(document).map_err(failed)
}

/// Ignores errors about documents that already exist: an earlier attempt has stored these documents, but its reply was
/// lost.
fn ignore_existing(inserted: Result<(), Error>) -> Result<(), StoreError> {
    let Err(error) = inserted else { return Ok(()) };
    if is_duplicate_key(&error) {
        return Ok(());
    }
    match refused_documents(error)?.iter().find(|refused| refused.code != DUPLICATE_KEY) {
        Some(refused) => Err(failed(format!("{} (code {})", refused.message, refused.code))),
        None => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver_error(error: Error) -> StoreError {
    failed(error_text(&error))
}

fn failed(problem: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, problem)
}
