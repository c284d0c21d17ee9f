//! The metrics of the response cache.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{counter, describe_counter, describe_gauge, gauge};
use votes::StoreError;

/// What the response cache had for a query.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheStatus {
    Hit,
    Stale,
    Miss,
    Bypassed,
    Degraded,
}

impl CacheStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypassed => "bypassed",
            Self::Degraded => "degraded",
        }
    }
}

/// Counts queries by what the response cache had for them.
pub(crate) struct CacheMetrics {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl CacheMetrics {
    pub(crate) fn new() -> Self {
        describe_counter!("ovation_cache_queries_total", "Queries by what the response cache had for them");
        describe_gauge!(
            "ovation_cache_hit_ratio",
            "Share of the queries with the status hit or stale in those with hit, stale or miss, since the start"
        );
        describe_counter!(
            "ovation_cache_warmed_total",
            "Responses to popular queries that this process cached at its start"
        );
        describe_gauge!("ovation_cache_popular_queries", "Popular queries that this process stored for the next start");
        describe_counter!("ovation_cache_failures_total", "Failed operations of the response cache");
        describe_counter!("ovation_cache_cleared_total", "Cached responses that were cleared on request");
        Self { hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self, status: CacheStatus) {
        counter!("ovation_cache_queries_total", "cache" => status.as_str()).increment(1);
        match status {
            CacheStatus::Hit | CacheStatus::Stale => self.hits.fetch_add(1, Ordering::Relaxed),
            CacheStatus::Miss => self.misses.fetch_add(1, Ordering::Relaxed),
            CacheStatus::Bypassed | CacheStatus::Degraded => return,
        };
        let (hits, misses) = (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed));
        gauge!("ovation_cache_hit_ratio").set(hits as f64 / (hits + misses) as f64);
    }
}

pub(crate) fn count_cleared(responses: u64) {
    counter!("ovation_cache_cleared_total").increment(responses);
}

pub(crate) fn count_warmed() {
    counter!("ovation_cache_warmed_total").increment(1);
}

pub(crate) fn set_popular_queries(queries: usize) {
    gauge!("ovation_cache_popular_queries").set(queries as f64);
}

/// Returns the outcome unchanged. Counts it if it is a failed operation of the response cache.
pub(crate) fn count_failure<T>(operation: &'static str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(error) = &outcome {
        tracing::debug!(operation, %error, "the response cache does not respond");
        counter!("ovation_cache_failures_total", "operation" => operation).increment(1);
    }
    outcome
}
