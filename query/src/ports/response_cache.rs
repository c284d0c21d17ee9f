//! The response cache stores responses, so that a repeated query does not need the query store.

use std::time::Duration;

use async_trait::async_trait;
use votes::{Store, StoreError, UnixMillis};

/// A bounded store of responses by the normal form of their query.
///
/// The cache may evict any response at any time. A full cache first evicts the response that would expire first.
#[async_trait]
pub trait ResponseCache: Store {
    /// Returns the current version of the tallies, and the cached response to this query.
    async fn get(&self, query: &str) -> Result<CacheLookup, StoreError>;

    /// Caches a response for `lifetime`.
    async fn put(&self, query: &str, response: &CachedResponse, lifetime: Duration) -> Result<(), StoreError>;

    /// Changes the expiry of a cached response to `lifetime` from now. Does nothing if the response is not cached.
    async fn extend(&self, query: &str, lifetime: Duration) -> Result<(), StoreError>;

    /// Deletes all cached responses. Returns the number of deleted responses.
    async fn clear(&self) -> Result<u64, StoreError>;

    /// Replaces the stored popular queries by these queries with their weights. The next process reads them at its
    /// start.
    async fn put_popular(&self, queries: &[(String, f64)]) -> Result<(), StoreError>;

    /// Returns the stored popular queries with their weights, the most popular first.
    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError>;
}

/// The result of a lookup in the response cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheLookup {
    /// The current version of the tallies.
    pub version: u64,
    /// The cached response, which may belong to an older version.
    pub cached: Option<CachedResponse>,
}

/// A cached response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResponse {
    /// The version of the data that the response depends on. The version was read before the data was read.
    pub version: u64,
    /// The time at which the data was read.
    pub read_at: UnixMillis,
    /// The response.
    pub body: Vec<u8>,
}
