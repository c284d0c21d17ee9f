//! Tests with real Redis servers.
#![allow(clippy::unwrap_used)]

mod cost;
mod faults;
mod keys;
mod response_cache;
mod server;

use std::sync::Arc;

use votes::Tallies;

use self::server::Server;
use crate::RedisTallies;

/// Opens tallies on the shared server, with a prefix that no other test uses.
async fn open() -> (RedisTallies, Arc<Server>, String) {
    let server = Server::shared();
    let prefix = server::new_prefix();
    let tallies = RedisTallies::connect(&server.url(&prefix)).await.unwrap();
    (tallies, server, prefix)
}

async fn open_port() -> (Arc<dyn Tallies>, Arc<Server>) {
    let (tallies, server, _) = open().await;
    (Arc::new(tallies), server)
}

votes::tallies_conformance!(open_port);

mod counting {
    use stores_sqlite::Embedded;
    use tempfile::TempDir;
    use votes::WholeLedger;

    use super::*;

    async fn open_both() -> (Arc<dyn WholeLedger>, Arc<dyn Tallies>, (TempDir, Arc<Server>)) {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Embedded::open(&folder.path().join("data"), 1_000, metrics::Gauge::noop()).unwrap().ledger;
        let (tallies, server) = open_port().await;
        (ledger, tallies, (folder, server))
    }

    votes::counting_conformance!(open_both);
}
