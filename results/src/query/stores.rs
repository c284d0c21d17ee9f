//! This module reads single votes and datasets from the stores.

use std::sync::Arc;

use query::{Dataset, DatasetId, Found, Query, Table};
use stores::QueryPorts;
use tokio::sync::Semaphore;
use votes::StoreError;

use crate::calls::{STORE_TIMEOUT, StoreCalls};

const QUERY_STORE: &str = "query store";
const DATASETS: &str = "datasets";

/// The query store and the store of datasets, with time-outs and a limit of concurrent queries.
pub(crate) struct QueryStores {
    query_ports: QueryPorts,
    calls: StoreCalls,
    permits: Arc<Semaphore>,
}

impl QueryStores {
    /// Creates the stores. The query store runs at most `max_queries` queries at a time, because a search of a large
    /// ledger may use all CPUs of a machine, and counting needs CPU, too.
    pub(crate) fn new(query_ports: QueryPorts, max_queries: usize) -> Self {
        Self { query_ports, calls: StoreCalls::default(), permits: Arc::new(Semaphore::new(max_queries)) }
    }

    /// Returns a page of votes or of a dataset, on a connection of the pool or, with `is_direct`, on a new connection.
    pub(crate) async fn find(&self, is_direct: bool, table: &Table, query: &Query) -> Result<Found, StoreError> {
        let query_store = if is_direct { &self.query_ports.direct } else { &self.query_ports.pool };
        let (query_store, table, query) = (Arc::clone(query_store), table.clone(), query.clone());
        let call = async move { query_store.find(&table, &query).await };
        self.calls.call_with_permit(QUERY_STORE, &self.permits, call).await
    }

    /// Returns the current state of the dataset with this name.
    pub(crate) async fn dataset(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        self.calls.call(DATASETS, STORE_TIMEOUT, self.query_ports.datasets.describe(id)).await
    }

    pub(crate) async fn datasets(&self) -> Result<Vec<Dataset>, StoreError> {
        self.calls.call(DATASETS, STORE_TIMEOUT, self.query_ports.datasets.list()).await
    }
}
