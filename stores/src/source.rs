//! The source of the ports of a configuration: a folder, or servers.

use std::sync::Arc;

use async_trait::async_trait;
use query::{ChunkQueue, Datasets, Imports, QueryStore, ResponseCache};
use stores_kafka::Membership;
use votes::{ConnectError, LogReader, LogWriter, Tallies, VoterSecret, WholeLedger};

/// The query store on a pool of connections, and the query store on a new connection for each query.
pub(crate) type QueryStores = (Arc<dyn QueryStore>, Arc<dyn QueryStore>);

/// Where the ports of a configuration come from. Each method opens a port, and tries once.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// Returns the secret of the voter hashes, if the stores have one.
    fn secret(&self) -> Option<VoterSecret>;

    /// Opens the writing end of the vote log.
    async fn log_writer(&self) -> Result<Arc<dyn LogWriter>, ConnectError>;

    /// Opens the reading end of the vote log.
    async fn log_reader(&self, membership: Membership) -> Result<Arc<dyn LogReader>, ConnectError>;

    /// Opens the ledger.
    async fn ledger(&self) -> Result<Arc<dyn WholeLedger>, ConnectError>;

    /// Opens the tallies.
    async fn tallies(&self) -> Result<Arc<dyn Tallies>, ConnectError>;

    /// Opens the query stores. The pool of the first query store has at most `connections` connections.
    async fn query_stores(&self, connections: u32) -> Result<QueryStores, ConnectError>;

    /// Opens the store where datasets are created and filled.
    async fn datasets(&self) -> Result<Arc<dyn Datasets>, ConnectError>;

    /// Opens the store of the states of imports.
    async fn imports(&self) -> Result<Arc<dyn Imports>, ConnectError>;

    /// Opens the queue of the chunks of imports.
    async fn chunks(&self) -> Result<Arc<dyn ChunkQueue>, ConnectError>;

    /// Opens the response cache, which holds at most `bytes` bytes.
    fn response_cache(&self, bytes: usize) -> Result<Arc<dyn ResponseCache>, ConnectError>;
}
