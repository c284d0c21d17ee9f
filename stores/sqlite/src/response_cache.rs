//! The port `ResponseCache`: responses in the memory of this process, with the version of the tallies in `count.db`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use query::{CacheLookup, CachedResponse, ResponseCache};
use rusqlite::params;
use votes::{HealthDetails, Store, StoreError};

use crate::{database::Readers, writer::WriteExecutor};

/// The maximum number of cached responses.
const MAX_RESPONSES: usize = 1_000;

pub(super) struct EmbeddedResponseCache {
    count: Arc<Readers>,
    datasets: Arc<Readers>,
    writer: WriteExecutor,
    /// The maximum number of bytes of all responses and their queries.
    max_bytes: usize,
    /// The response to each query, and when it expires.
    cached: Mutex<HashMap<String, (CachedResponse, Instant)>>,
}

impl EmbeddedResponseCache {
    pub(super) fn new(count: Arc<Readers>, datasets: Arc<Readers>, writer: WriteExecutor, max_bytes: usize) -> Self {
        Self { count, datasets, writer, max_bytes, cached: Mutex::default() }
    }

    fn cached(&self) -> MutexGuard<'_, HashMap<String, (CachedResponse, Instant)>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for EmbeddedResponseCache {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let cached = self.cached();
        let bytes: usize = cached.values().map(|(response, _)| response.body.len()).sum();
        Ok(HealthDetails::from([("responses", cached.len().to_string()), ("bytes", bytes.to_string())]))
    }
}

#[async_trait]
impl ResponseCache for EmbeddedResponseCache {
    async fn get(&self, query: &str) -> Result<CacheLookup, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = 'version'";
        let version = self.count.read(|db| db.prepare_cached(sql)?.query_row([], |row| row.get(0))).await?;
        let cached = self.cached();
        let cached = cached.get(query).filter(|(_, until)| Instant::now() < *until);
        Ok(CacheLookup { version, cached: cached.map(|(response, _)| response.clone()) })
    }

    async fn put(&self, query: &str, response: &CachedResponse, lifetime: Duration) -> Result<(), StoreError> {
        let size = |query: &str, response: &CachedResponse| query.len() + response.body.len();
        let added = size(query, response);
        if added > self.max_bytes {
            return Ok(());
        }
        let now = Instant::now();
        let mut cached = self.cached();
        cached.remove(query);
        cached.retain(|_, (_, until)| *until > now);
        let mut bytes: usize = cached.iter().map(|(query, (response, _))| size(query, response)).sum();
        while bytes + added > self.max_bytes || cached.len() >= MAX_RESPONSES {
            let first = cached.iter().min_by_key(|(_, (_, until))| *until).map(|(query, _)| query.clone());
            let Some((query, (response, _))) = first.and_then(|query| cached.remove_entry(&query)) else { break };
            bytes -= size(&query, &response);
        }
        cached.insert(query.to_owned(), (response.clone(), now + lifetime));
        Ok(())
    }

    async fn extend(&self, query: &str, lifetime: Duration) -> Result<(), StoreError> {
        if let Some((_, until)) = self.cached().get_mut(query).filter(|(_, until)| Instant::now() < *until) {
            *until = Instant::now() + lifetime;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<u64, StoreError> {
        Ok(self.cached().drain().count() as u64)
    }

    async fn put_popular(&self, queries: &[(String, f64)]) -> Result<(), StoreError> {
        let queries = queries.to_vec();
        self.writer
            .run(move |db| {
                db.execute("DELETE FROM popular", [])?;
                let mut insert = db.prepare_cached("INSERT OR REPLACE INTO popular VALUES (?1, ?2)")?;
                queries.iter().try_for_each(|(query, weight)| insert.execute(params![query, weight]).map(drop))
            })
            .await
    }

    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError> {
        let sql = "SELECT query, weight FROM popular ORDER BY weight DESC, query";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.datasets.read(move |db| db.prepare(sql)?.query_map([], read)?.collect()).await
    }
}
