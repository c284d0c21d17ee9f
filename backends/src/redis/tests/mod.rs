//! The promises, tried against a real Redis.
#![allow(clippy::unwrap_used)]

mod answers;
mod cost;
mod faults;
mod keys;
mod server;

use std::sync::Arc;

use votes::Tallies;

use self::server::Server;
use super::RedisTallies;

/// Tallies of their own on the shared server.
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

#[cfg(feature = "embedded")]
mod counting {
    use tempfile::TempDir;
    use votes::Book;

    use super::*;
    use crate::embedded::Embedded;

    async fn open_both() -> (Arc<dyn Book>, Arc<dyn Tallies>, (TempDir, Arc<Server>)) {
        let folder = tempfile::tempdir().unwrap();
        let book = Embedded::open(&folder.path().join("data"), 1_000).unwrap().book;
        let (tallies, server) = open_port().await;
        (book, tallies, (folder, server))
    }

    votes::counting_conformance!(open_both);
}
