//! The embedded stores keep every promise of the ports.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backends::Stores;
use serde_json::json;
use service::{Config, Health, health::Weight};
use tempfile::TempDir;
use votes::{Book, Tallies, VoteFeed, VoteQueue};

fn config(folder: &TempDir) -> Config {
    // Flags win over the environment, which may name the servers of the other tests.
    let embedded = "embedded:";
    let flags = json!({
        "data": folder.path().join("data"), "queue": embedded, "tally": embedded, "book": embedded,
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
