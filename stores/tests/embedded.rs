//! The conformance suites of the ports, run on the embedded stores.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use query::{ChunkQueue, Datasets, Imports, Objects, QueryStore, ResponseCache};
use serde_json::json;
use service::{Config, Health, health::Criticality};
use stores::QueryPorts;
use stores::Stores;
use tempfile::TempDir;
use votes::{LogReader, LogWriter, Tallies, WholeLedger};

fn config(folder: &TempDir) -> Config {
    // Set the stores with flags, because the environment may contain the servers of the other tests.
    let embedded = "embedded:";
    let flags = json!({
        "data": folder.path().join("data"), "vote_log": embedded, "tallies": embedded, "ledger": embedded, "cache_bytes": 100_000,
    });
    Config::load(None, flags, 0).unwrap()
}

fn open() -> (Stores, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Stores::open(&config(&folder), &Health::default()).unwrap(), folder)
}

mod log {
    use super::*;

    async fn open_log() -> (Arc<dyn LogWriter>, Arc<dyn LogReader>, TempDir) {
        let (stores, folder) = open();
        (
            stores.log_writer(Criticality::Required).await.unwrap(),
            stores.log_reader(Criticality::Required).await.unwrap(),
            folder,
        )
    }

    votes::log_conformance!(open_log);
}

mod ledger {
    use super::*;

    async fn open_ledger() -> (Arc<dyn WholeLedger>, TempDir) {
        let (stores, folder) = open();
        (stores.ledger(Criticality::Required).await.unwrap(), folder)
    }

    votes::ledger_conformance!(open_ledger);
}

mod query_store {
    use super::*;

    async fn open_query_store() -> (Arc<dyn WholeLedger>, Arc<dyn Datasets>, Arc<dyn QueryStore>, TempDir) {
        let (stores, folder) = open();
        let QueryPorts { pool, datasets, .. } = stores.query_ports(Criticality::Required).await.unwrap();
        (stores.ledger(Criticality::Required).await.unwrap(), datasets, pool, folder)
    }

    query::query_store_conformance!(open_query_store);
}

mod direct {
    use super::*;

    async fn open_query_store() -> (Arc<dyn WholeLedger>, Arc<dyn Datasets>, Arc<dyn QueryStore>, TempDir) {
        let (stores, folder) = open();
        let QueryPorts { direct, datasets, .. } = stores.query_ports(Criticality::Required).await.unwrap();
        (stores.ledger(Criticality::Required).await.unwrap(), datasets, direct, folder)
    }

    query::query_store_conformance!(open_query_store: votes_come_newest_first any_name_is_found pages_by_cursor_return_every_row);
}

mod imports {
    use super::*;

    async fn open_imports() -> (Arc<dyn Imports>, TempDir) {
        let (stores, folder) = open();
        (stores.imports(Criticality::Required).await.unwrap(), folder)
    }

    query::imports_conformance!(open_imports);

    async fn open_chunks() -> ([Arc<dyn ChunkQueue>; 2], Option<Arc<dyn Imports>>, TempDir) {
        let (stores, folder) = open();
        let (imports, chunks) =
            (stores.imports(Criticality::Required).await.unwrap(), stores.chunks(Criticality::Required).await.unwrap());
        ([Arc::clone(&chunks), chunks], Some(imports), folder)
    }

    query::chunks_conformance!(open_chunks);
}

mod datasets {
    use super::*;

    async fn open_datasets() -> (Arc<dyn Datasets>, Arc<dyn QueryStore>, TempDir) {
        let (stores, folder) = open();
        let QueryPorts { pool, datasets, .. } = stores.query_ports(Criticality::Required).await.unwrap();
        (datasets, pool, folder)
    }

    query::datasets_conformance!(open_datasets);
}

mod response_cache {
    use super::*;

    async fn open_response_cache() -> (Arc<dyn ResponseCache>, Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        let QueryPorts { response_cache, .. } = stores.query_ports(Criticality::Required).await.unwrap();
        (response_cache, stores.tallies(Criticality::Required).await.unwrap(), folder)
    }

    query::response_cache_conformance!(open_response_cache);
}

mod objects {
    use super::*;

    async fn open_objects() -> (Arc<dyn Objects>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        // Ignore an object store of the environment.
        config.objects = None;
        let stores = Stores::open(&config, &Health::default()).unwrap();
        (stores.objects(Criticality::Optional).await.unwrap(), folder)
    }

    query::objects_conformance!(open_objects);
}

mod tallies {
    use super::*;

    async fn open_tallies() -> (Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        (stores.tallies(Criticality::Required).await.unwrap(), folder)
    }

    votes::tallies_conformance!(open_tallies);
}

mod counting {
    use super::*;

    async fn open_both() -> (Arc<dyn WholeLedger>, Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        (
            stores.ledger(Criticality::Required).await.unwrap(),
            stores.tallies(Criticality::Required).await.unwrap(),
            folder,
        )
    }

    votes::counting_conformance!(open_both);
}
