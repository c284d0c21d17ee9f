//! The embedded stores keep every promise of the ports.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backends::Reading;
use backends::Stores;
use serde_json::json;
use service::{Config, Health, health::Weight};
use tempfile::TempDir;
use votes::{Answers, Archive, Book, ChunkQueue, Datasets, Imports, Objects, Tallies, VoteFeed, VoteQueue};

fn config(folder: &TempDir) -> Config {
    // Flags win over the environment, which may name the servers of the other tests.
    let embedded = "embedded:";
    let flags = json!({
        "data": folder.path().join("data"), "queue": embedded, "tally": embedded, "book": embedded, "cache_bytes": 100_000,
    });
    Config::load(None, flags, 0).unwrap()
}

fn open() -> (Stores, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Stores::open(&config(&folder), &Health::default()).unwrap(), folder)
}

mod log {
    use super::*;

    async fn open_log() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, TempDir) {
        let (stores, folder) = open();
        (stores.queue(Weight::Vital).await.unwrap(), stores.feed(Weight::Vital).await.unwrap(), folder)
    }

    votes::log_conformance!(open_log);
}

mod book {
    use super::*;

    async fn open_book() -> (Arc<dyn Book>, TempDir) {
        let (stores, folder) = open();
        (stores.book(Weight::Vital).await.unwrap(), folder)
    }

    votes::book_conformance!(open_book);
}

mod archive {
    use super::*;

    async fn open_archive() -> (Arc<dyn Book>, Arc<dyn Datasets>, Arc<dyn Archive>, TempDir) {
        let (stores, folder) = open();
        let Reading { pool, datasets, .. } = stores.reading(Weight::Vital).await.unwrap();
        (stores.book(Weight::Vital).await.unwrap(), datasets, pool, folder)
    }

    votes::archive_conformance!(open_archive);
}

mod direct {
    use super::*;

    async fn open_archive() -> (Arc<dyn Book>, Arc<dyn Datasets>, Arc<dyn Archive>, TempDir) {
        let (stores, folder) = open();
        let Reading { direct, datasets, .. } = stores.reading(Weight::Vital).await.unwrap();
        (stores.book(Weight::Vital).await.unwrap(), datasets, direct, folder)
    }

    votes::archive_conformance!(open_archive: votes_come_newest_first any_name_is_found pages_by_cursor_are_the_whole_answer);
}

mod imports {
    use super::*;

    async fn open_imports() -> (Arc<dyn Imports>, TempDir) {
        let (stores, folder) = open();
        (stores.imports(Weight::Vital).await.unwrap(), folder)
    }

    votes::imports_conformance!(open_imports);

    async fn open_chunks() -> ([Arc<dyn ChunkQueue>; 2], Option<Arc<dyn Imports>>, TempDir) {
        let (stores, folder) = open();
        let (imports, chunks) =
            (stores.imports(Weight::Vital).await.unwrap(), stores.chunks(Weight::Vital).await.unwrap());
        ([Arc::clone(&chunks), chunks], Some(imports), folder)
    }

    votes::chunks_conformance!(open_chunks);
}

mod datasets {
    use super::*;

    async fn open_datasets() -> (Arc<dyn Datasets>, Arc<dyn Archive>, TempDir) {
        let (stores, folder) = open();
        let Reading { pool, datasets, .. } = stores.reading(Weight::Vital).await.unwrap();
        (datasets, pool, folder)
    }

    votes::datasets_conformance!(open_datasets);
}

mod answers {
    use super::*;

    async fn open_answers() -> (Arc<dyn Answers>, Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        let Reading { answers, .. } = stores.reading(Weight::Vital).await.unwrap();
        (answers, stores.tallies(Weight::Vital).await.unwrap(), folder)
    }

    votes::answers_conformance!(open_answers);
}

#[cfg(feature = "objects")]
mod objects {
    use super::*;

    async fn open_objects() -> (Arc<dyn Objects>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        // Nor may the environment name one.
        config.objects = None;
        let stores = Stores::open(&config, &Health::default()).unwrap();
        (stores.objects(Weight::Helpful).await.unwrap(), folder)
    }

    votes::objects_conformance!(open_objects);
}

mod tallies {
    use super::*;

    async fn open_tallies() -> (Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        (stores.tallies(Weight::Vital).await.unwrap(), folder)
    }

    votes::tallies_conformance!(open_tallies);
}

mod counting {
    use super::*;

    async fn open_both() -> (Arc<dyn Book>, Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        (stores.book(Weight::Vital).await.unwrap(), stores.tallies(Weight::Vital).await.unwrap(), folder)
    }

    votes::counting_conformance!(open_both);
}
