//! What is known of imports, in the database of datasets.

use async_trait::async_trait;
use mongodb::{
    Collection, Database,
    bson::{Bson, Document, deserialize_from_document, doc, serialize_to_bson, serialize_to_document},
    error::Error,
};
use votes::{
    Facts, ImportProgress, Imports, Store, StoreError, UnixMillis,
    import::{Chunk, Import, ImportId, ImportState, Loaded},
};

use super::{
    archive::Databases,
    bounded,
    connect::counted,
    insert::{DUPLICATE_KEY, refused},
    problem,
};

/// What the port is called in errors.
const STORE: &str = "imports";

const IMPORTS: &str = "_imports";
const CHUNKS: &str = "_import_chunks";

/// So many chunks are noted at a time.
const CHUNKS_AT_ONCE: usize = 1_000;

pub(crate) struct MongoImports {
    database: Database,
}

impl MongoImports {
    pub(crate) fn new(databases: &Databases) -> Self {
        Self { database: databases.datasets.clone() }
    }

    fn imports(&self) -> Collection<Document> {
        counted(&self.database, IMPORTS).clone_with_type()
    }

    fn chunks(&self) -> Collection<Document> {
        counted(&self.database, CHUNKS).clone_with_type()
    }
}

#[async_trait]
impl Store for MongoImports {
    async fn check(&self) -> Result<Facts, StoreError> {
        bounded(STORE, async {
            self.database.run_command(doc! { "ping": 1 }).await.map_err(driver)?;
            Ok(Facts::new())
        })
        .await
    }
}

#[async_trait]
impl Imports for MongoImports {
    async fn begin(&self, import: &Import, chunks: &[Chunk]) -> Result<(), StoreError> {
        // The chunks first: an import that is there has all of them.
        for some in chunks.chunks(CHUNKS_AT_ONCE) {
            let documents = some.iter().map(of_chunk).collect::<Result<Vec<_>, _>>()?;
            bounded(STORE, async { new_only(self.chunks().insert_many(documents).ordered(false).await.map(drop)) })
                .await?;
        }
        let mut document = serialize_to_document(import).map_err(failed)?;
        document.insert("_id", import.id.to_string());
        bounded(STORE, async { new_only(self.imports().insert_one(document).await.map(drop)) }).await
    }

    async fn find(&self, id: ImportId) -> Result<Option<Import>, StoreError> {
        bounded(STORE, async {
            let found = self.imports().find_one(doc! { "_id": id.to_string() }).await.map_err(driver)?;
            found.map(read).transpose()
        })
        .await
    }

    async fn loading(&self) -> Result<Vec<Import>, StoreError> {
        bounded(STORE, async {
            let filter = doc! { "state.state": "loading" };
            let mut found = self.imports().find(filter).sort(doc! { "_id": 1 }).await.map_err(driver)?;
            let mut imports = Vec::new();
            while found.advance().await.map_err(driver)? {
                imports.push(read(found.deserialize_current().map_err(driver)?)?);
            }
            Ok(imports)
        })
        .await
    }

    async fn progress(&self, id: ImportId) -> Result<ImportProgress, StoreError> {
        bounded(STORE, async {
            let done = chunks_of(id, true);
            let mut found = self.chunks().find(done).sort(doc! { "_id": 1 }).await.map_err(driver)?;
            let mut progress = ImportProgress::default();
            while found.advance().await.map_err(driver)? {
                let document: Document = found.deserialize_current().map_err(driver)?;
                let loaded = document.get_document("loaded").map_err(failed)?.clone();
                let at = document.get_i64("done_at").map_err(failed)?;
                progress.add(UnixMillis(at), deserialize_from_document(loaded).map_err(failed)?);
            }
            Ok(progress)
        })
        .await
    }

    async fn is_done(&self, chunk: &Chunk) -> Result<bool, StoreError> {
        bounded(STORE, async {
            let done = doc! { "_id": key(chunk.import, chunk.number), "done_at": { "$exists": true } };
            Ok(self.chunks().find_one(done).await.map_err(driver)?.is_some())
        })
        .await
    }

    async fn done(&self, chunk: &Chunk, at: UnixMillis, loaded: &Loaded) -> Result<(), StoreError> {
        let loaded = serialize_to_bson(loaded).map_err(failed)?;
        bounded(STORE, async {
            let undone = doc! { "_id": key(chunk.import, chunk.number), "done_at": { "$exists": false } };
            let done = doc! { "$set": { "done_at": at.0, "loaded": loaded } };
            self.chunks().update_one(undone, done).await.map_err(driver)?;
            Ok(())
        })
        .await
    }

    async fn undone(&self, id: ImportId, most: usize) -> Result<Vec<Chunk>, StoreError> {
        bounded(STORE, async {
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let chunks = self.chunks();
            let found = chunks.find(chunks_of(id, false)).sort(doc! { "_id": 1 }).limit(most);
            let mut found = found.await.map_err(driver)?;
            let mut undone = Vec::new();
            while found.advance().await.map_err(driver)? {
                let document: Document = found.deserialize_current().map_err(driver)?;
                let chunk = document.get_document("chunk").map_err(failed)?.clone();
                undone.push(deserialize_from_document(chunk).map_err(failed)?);
            }
            Ok(undone)
        })
        .await
    }

    async fn end(&self, id: ImportId, state: &ImportState) -> Result<(), StoreError> {
        let state = serialize_to_bson(state).map_err(failed)?;
        bounded(STORE, async {
            let loading = doc! { "_id": id.to_string(), "state.state": "loading" };
            self.imports().update_one(loading, doc! { "$set": { "state": state } }).await.map_err(driver)?;
            Ok(())
        })
        .await
    }
}

/// What a chunk's document is called: in the order of the file.
fn key(import: ImportId, number: u32) -> String {
    format!("{import}/{number:010}")
}

fn chunks_of(import: ImportId, is_done: bool) -> Document {
    // '0' follows '/'.
    let range = doc! { "$gt": format!("{import}/"), "$lt": format!("{import}0") };
    doc! { "_id": range, "done_at": { "$exists": is_done } }
}

fn of_chunk(chunk: &Chunk) -> Result<Document, StoreError> {
    Ok(doc! { "_id": key(chunk.import, chunk.number), "chunk": serialize_to_bson(chunk).map_err(failed)? })
}

fn read(mut document: Document) -> Result<Import, StoreError> {
    let id = document.remove("_id").unwrap_or(Bson::Null);
    document.insert("id", id);
    deserialize_from_document(document).map_err(failed)
}

/// Whether all was stored, or was there already from an attempt whose answer was lost.
fn new_only(inserted: Result<(), Error>) -> Result<(), StoreError> {
    let Err(error) = inserted else { return Ok(()) };
    if super::book::is_duplicate(&error) {
        return Ok(());
    }
    match refused(error)?.iter().find(|refused| refused.code != DUPLICATE_KEY) {
        Some(refused) => Err(failed(format!("{} (code {})", refused.message, refused.code))),
        None => Ok(()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver(error: Error) -> StoreError {
    failed(problem(&error))
}

fn failed(problem: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, problem)
}
