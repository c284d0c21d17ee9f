//! This module caches the responses to popular queries at the start of a process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use query::{DatasetId, Query, Table, decode_normal_form};
use tokio::time::interval;

use super::{
    cache::QueryCache,
    cache_metrics::{CacheStatus, count_failure, count_warmed, set_popular_queries},
    loading::QueryOutcome,
    request::{QueryRequest, ReadOptions},
};

/// The maximum number of popular queries that are stored.
const MAX_POPULAR: usize = 50;

/// The interval at which the popular queries are stored.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the queries that were popular before this start. Then stores the popular queries at an interval. Never returns.
pub(crate) async fn cache_popular(cache: QueryCache) {
    let popular = count_failure("popular", cache.responses().popular().await).unwrap_or_default();
    for (key, weight) in popular {
        cache.popularity().add(&key, weight, Instant::now());
        if run_uncached(&cache, &key).await {
            count_warmed();
        }
    }
    let mut stored = Vec::new();
    let mut ticks = interval(SAVE_INTERVAL);
    loop {
        ticks.tick().await;
        let popular = cache.popularity().most_popular(MAX_POPULAR, Instant::now());
        if !popular.is_empty()
            && popular != stored
            && count_failure("put_popular", cache.responses().put_popular(&popular).await).is_ok()
        {
            set_popular_queries(popular.len());
            stored = popular;
        }
    }
}

/// Runs a query if its response is not cached. Returns whether a response was read from the query store.
async fn run_uncached(cache: &QueryCache, key: &str) -> bool {
    let Some(request) = parse_key(cache, key).await else { return false };
    let (outcome, status) = cache.response(&request).await;
    status == CacheStatus::Miss && matches!(outcome, QueryOutcome::Response(_))
}

/// Returns the request of a stored key, or `None` if the query is no longer valid.
async fn parse_key(cache: &QueryCache, key: &str) -> Option<QueryRequest> {
    let (table, query) = key.split_once('?')?;
    let table = match table.strip_prefix("datasets/") {
        None => Table::Votes,
        Some(id) => {
            let id: DatasetId = id.parse().ok()?;
            Table::Dataset(Arc::new(cache.stores().dataset(&id).await.ok()??))
        }
    };
    let schema = table.schema();
    let parameters = decode_normal_form(query);
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let query = Query::parse(&schema, parameters).ok()?;
    Some(QueryRequest { table, schema, query, options: ReadOptions::default() })
}
