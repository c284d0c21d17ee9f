//! The three ways to serve a query: with a new connection, with a connection of the pool, or from the response cache.

use std::sync::Arc;

use futures::StreamExt;
use query::{Found, ResponseCache};
use service::http::Problem;
use votes::{StoreError, UnixMillis};

use super::{
    cache::QueryCache,
    cache_metrics::{CacheMetrics, CacheStatus},
    loading::{QueryOutcome, load, too_many_rows},
    request::{Format, QueryRequest, ReadPath},
    response::{QueryResponse, RowStream, first_count},
    stores::QueryStores,
    warm_up,
};
use crate::problems::unavailable;

/// Serves queries.
#[derive(Clone)]
pub(crate) struct Reader {
    stores: Arc<QueryStores>,
    cache: QueryCache,
    metrics: Arc<CacheMetrics>,
}

impl Reader {
    pub(crate) fn new(stores: Arc<QueryStores>, responses: Arc<dyn ResponseCache>) -> Self {
        let cache = QueryCache::new(Arc::clone(&stores), responses);
        Self { stores, cache, metrics: Arc::new(CacheMetrics::new()) }
    }

    /// Serves a query in the way and in the format that the request has.
    pub(crate) async fn respond(&self, request: QueryRequest) -> Result<QueryResponse, Problem> {
        if request.options.format != Format::Json {
            return self.stream(request).await;
        }
        let (outcome, status) = match request.options.via {
            ReadPath::Cache => self.cache.response(&request).await,
            via => (load(&self.stores, &request, via, 0).await, CacheStatus::Bypassed),
        };
        self.metrics.count(status);
        let response = match outcome {
            QueryOutcome::Response(response) => response,
            QueryOutcome::TooManyRows(max) => return Err(too_many_rows(&request.table, max).into()),
            QueryOutcome::Failed(error) => return Err(unavailable(&error)),
        };
        let age = UnixMillis::now().0.saturating_sub(response.read_at.0).max(0);
        let (via, status) = (request.options.via.as_str(), status.as_str());
        let served = format!(",\"served\":{{\"via\":\"{via}\",\"cache\":\"{status}\",\"age_ms\":{age}}}}}");
        Ok(QueryResponse::Json([b"{", response.body.as_slice(), served.as_bytes()].concat()))
    }

    /// Serves a query with a stream of rows.
    async fn stream(&self, request: QueryRequest) -> Result<QueryResponse, Problem> {
        let QueryRequest { table, schema, mut query, options } = request;
        let limit = options.has_limit.then_some(query.count);
        query.count = first_count(limit);
        let via = if options.via == ReadPath::Cache { ReadPath::Pool } else { options.via };
        let first = match self.stores.find(via == ReadPath::Direct, &table, &query).await {
            Ok(Found::Page(page)) => page,
            Ok(Found::TooManyRows(max)) => return Err(too_many_rows(&table, max).into()),
            Err(error) => return Err(unavailable(&error)),
        };
        self.metrics.count(CacheStatus::Bypassed);
        let (stores, total, format) = (Arc::clone(&self.stores), first.total, options.format);
        let max_rows = limit.unwrap_or(usize::MAX);
        let rows = RowStream { stores, table, schema, query, via, format, max_rows }.start(first).boxed();
        Ok(QueryResponse::Rows { format, via, total, rows })
    }

    /// Caches the responses to popular queries, and then stores the popular queries at an interval. Never returns.
    pub(crate) async fn cache_popular(self) {
        warm_up::cache_popular(self.cache).await;
    }

    /// Clears all cached responses. Returns the number of cleared responses.
    pub(crate) async fn clear(&self) -> Result<u64, StoreError> {
        self.cache.clear().await
    }
}
