//! The cache of responses to queries.
//!
//! A cached response is current while the version of its data is unchanged. For votes, this is the version of the
//! tallies. For a dataset, it is the version of the dataset. The version is read before the query store. So a response
//! may be newer than the version with which it is cached, but never older.
//!
//! While votes are counted, the version of the tallies changes many times a second. A client that accepts a response
//! from a few seconds ago sets `max_age`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use query::{CachedResponse, Query, ResponseCache, Schema, Table};
use votes::{StoreError, UnixMillis};

use super::{
    cache_metrics::{CacheStatus, count_cleared, count_failure},
    loading::{QueryOutcome, load},
    popularity::Popularity,
    request::{QueryRequest, ReadPath},
    single_flight::{FlightGuard, SingleFlight},
    stores::QueryStores,
};

/// The largest response that is cached, in bytes.
const MAX_RESPONSE_BYTES: usize = 8 << 20;

/// The longest query whose response is cached, in bytes of its key.
const MAX_KEY_BYTES: usize = 4_096;

/// The cache of responses to queries.
#[derive(Clone)]
pub(crate) struct QueryCache(Arc<State>);

struct State {
    stores: Arc<QueryStores>,
    responses: Arc<dyn ResponseCache>,
    popularity: Mutex<Popularity>,
    /// The queries that are being run.
    flights: SingleFlight<FlightKey, LoadedOutcome>,
    /// The number of times that the cache was cleared. The response to a query that began before a clearing is not
    /// cached.
    clearings: AtomicU64,
}

/// The key of a query, and the version that was read before the query was run.
type FlightKey = (String, u64);

/// The outcome of a query, and the number of clearings when the query began.
type LoadedOutcome = (QueryOutcome, u64);

impl QueryCache {
    pub(crate) fn new(stores: Arc<QueryStores>, responses: Arc<dyn ResponseCache>) -> Self {
        Self(Arc::new(State {
            stores,
            responses,
            popularity: Mutex::default(),
            flights: SingleFlight::default(),
            clearings: AtomicU64::new(0),
        }))
    }

    /// Returns the response to a query, from the cache or from the query store.
    pub(crate) async fn response(&self, request: &QueryRequest) -> (QueryOutcome, CacheStatus) {
        let stores = &self.0.stores;
        let key = key(&request.table, &request.schema, &request.query);
        if key.len() > MAX_KEY_BYTES {
            return (load(stores, request, ReadPath::Pool, 0).await, CacheStatus::Bypassed);
        }
        let lifetime = self.popularity().record_request(&key, Instant::now());
        let Ok(found) = count_failure("get", self.0.responses.get(&key).await) else {
            return (load(stores, request, ReadPath::Pool, 0).await, CacheStatus::Degraded);
        };
        let version = match &request.table {
            Table::Votes => found.version,
            Table::Dataset(dataset) => dataset.version,
        };
        if let Some(cached) = found.cached {
            let age = UnixMillis::now().0.saturating_sub(cached.read_at.0);
            let is_current = cached.version == version;
            if is_current || age < request.options.max_age {
                self.extend(key, lifetime);
                let status = if is_current { CacheStatus::Hit } else { CacheStatus::Stale };
                return (QueryOutcome::Response(Arc::new(cached)), status);
            }
        }
        (self.load_once(request, (key, version), lifetime).await, CacheStatus::Miss)
    }

    /// Runs a query. Concurrent requests for the same query at the same version share one run.
    async fn load_once(&self, request: &QueryRequest, flight: FlightKey, lifetime: Duration) -> QueryOutcome {
        let (key, version) = flight.clone();
        let run = async {
            let clearings = self.0.clearings.load(Ordering::SeqCst);
            (load(&self.0.stores, request, ReadPath::Pool, version).await, clearings)
        };
        let ((outcome, clearings), guard) = self.0.flights.get(flight, run).await;
        if let (QueryOutcome::Response(response), Some(guard)) = (&outcome, guard)
            && response.body.len() <= MAX_RESPONSE_BYTES
            && clearings == self.0.clearings.load(Ordering::SeqCst)
        {
            self.put(key, Arc::clone(response), lifetime, guard);
        }
        outcome
    }

    /// Caches a response in the background. The guard is held until the response is cached, so requests that arrive
    /// before get the same response.
    fn put(
        &self,
        key: String,
        response: Arc<CachedResponse>,
        lifetime: Duration,
        guard: FlightGuard<FlightKey, LoadedOutcome>,
    ) {
        self.popularity().record_cached(&key, lifetime, Instant::now());
        let cache = self.clone();
        tokio::spawn(async move {
            let result = cache.0.responses.put(&key, &response, lifetime).await;
            let _ = count_failure("put", result);
            drop(guard);
        });
    }

    /// Extends the lifetime of a cached response in the background, if less than half of the lifetime remains.
    fn extend(&self, key: String, lifetime: Duration) {
        let now = Instant::now();
        {
            let mut popularity = self.popularity();
            if !popularity.should_extend(&key, lifetime, now) {
                return;
            }
            popularity.record_cached(&key, lifetime, now);
        }
        let cache = self.clone();
        tokio::spawn(async move {
            let result = cache.0.responses.extend(&key, lifetime).await;
            let _ = count_failure("extend", result);
        });
    }

    /// Clears all cached responses. Returns the number of cleared responses.
    pub(crate) async fn clear(&self) -> Result<u64, StoreError> {
        self.0.clearings.fetch_add(1, Ordering::SeqCst);
        let cleared = count_failure("clear", self.0.responses.clear().await)?;
        count_cleared(cleared);
        Ok(cleared)
    }

    /// Returns the store of the cached responses.
    pub(super) fn responses(&self) -> &dyn ResponseCache {
        &*self.0.responses
    }

    pub(super) fn stores(&self) -> &QueryStores {
        &self.0.stores
    }

    pub(super) fn popularity(&self) -> MutexGuard<'_, Popularity> {
        self.0.popularity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the key of a cached response: the table and the normal form of the query.
fn key(table: &Table, schema: &Schema, query: &Query) -> String {
    let query = query.normal_form(schema);
    match table {
        Table::Votes => format!("votes?{query}"),
        Table::Dataset(dataset) => format!("datasets/{}?{query}", dataset.id),
    }
}
