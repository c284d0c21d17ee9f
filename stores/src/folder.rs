//! Opens the ports of the embedded stores, which are in one folder of this machine.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use query::{ChunkQueue, Datasets, Imports, QueryStore, ResponseCache};
use stores_kafka::Membership;
use stores_sqlite::Embedded;
use votes::{ConnectError, LogReader, LogWriter, OpenError, Tallies, VoterSecret, WholeLedger};

use crate::{
    meters::{self, MeteredLedger, MeteredQueryStore, MeteredTallies},
    source::{QueryStores, Source},
};

/// The embedded stores. A process that only reads them records no metrics of the ledger and the tallies.
pub(crate) struct Folder {
    embedded: Embedded,
    ledger: Arc<dyn WholeLedger>,
    tallies: Arc<dyn Tallies>,
}

impl Folder {
    /// Opens the stores for a process that reads and writes them.
    pub(crate) fn open(path: &Path, max_queued_votes: usize) -> Result<Self, OpenError> {
        let queued_votes = meters::register_queued_votes(max_queued_votes);
        let embedded = Embedded::open(path, max_queued_votes, queued_votes)?;
        let ledger = Arc::new(MeteredLedger::new(Arc::clone(&embedded.ledger)));
        let tallies = Arc::new(MeteredTallies::new(Arc::clone(&embedded.tallies)));
        Ok(Self { embedded, ledger, tallies })
    }

    /// Opens the stores for a command that only reads them. Another process may write to them meanwhile.
    pub(crate) fn open_for_reading(path: &Path) -> Result<Self, OpenError> {
        let embedded = Embedded::open_for_reading(path)?;
        let (ledger, tallies) = (Arc::clone(&embedded.ledger), Arc::clone(&embedded.tallies));
        Ok(Self { embedded, ledger, tallies })
    }

    fn query_store(&self, is_direct: bool) -> Result<Arc<dyn QueryStore>, ConnectError> {
        let query_store = writable(self.embedded.query_store(is_direct))?;
        Ok(Arc::new(MeteredQueryStore::new(query_store, if is_direct { "direct" } else { "pool" })))
    }
}

/// Returns an opened port that needs write access.
///
/// # Errors
/// If the folder was opened for reading only.
fn writable<T>(opened: Option<T>) -> Result<T, ConnectError> {
    opened.ok_or_else(|| ConnectError::Refused("the stores are open for reading only".to_owned()))
}

#[async_trait]
impl Source for Folder {
    fn secret(&self) -> Option<VoterSecret> {
        Some(self.embedded.secret.clone())
    }

    async fn log_writer(&self) -> Result<Arc<dyn LogWriter>, ConnectError> {
        Ok(self.embedded.log_writer())
    }

    async fn log_reader(&self, _: Membership) -> Result<Arc<dyn LogReader>, ConnectError> {
        Ok(self.embedded.log_reader())
    }

    async fn ledger(&self) -> Result<Arc<dyn WholeLedger>, ConnectError> {
        Ok(Arc::clone(&self.ledger))
    }

    async fn tallies(&self) -> Result<Arc<dyn Tallies>, ConnectError> {
        Ok(Arc::clone(&self.tallies))
    }

    async fn query_stores(&self, _: u32) -> Result<QueryStores, ConnectError> {
        Ok((self.query_store(false)?, self.query_store(true)?))
    }

    async fn datasets(&self) -> Result<Arc<dyn Datasets>, ConnectError> {
        writable(self.embedded.datasets())
    }

    async fn imports(&self) -> Result<Arc<dyn Imports>, ConnectError> {
        writable(self.embedded.imports())
    }

    async fn chunks(&self) -> Result<Arc<dyn ChunkQueue>, ConnectError> {
        writable(self.embedded.chunks())
    }

    fn response_cache(&self, bytes: usize) -> Result<Arc<dyn ResponseCache>, ConnectError> {
        writable(self.embedded.response_cache(bytes))
    }
}
