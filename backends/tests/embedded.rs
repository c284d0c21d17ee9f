//! The embedded stores keep every promise of the ports.
#![allow(clippy::unwrap_used)]
#![expect(clippy::unused_async, reason = "the suites open any backend")]

use std::sync::Arc;

use backends::Stores;
use serde_json::json;
use service::Config;
use tempfile::TempDir;
use votes::{Book, Tallies, VoteFeed, VoteQueue};

fn config(folder: &TempDir) -> Config {
    Config::load(None, json!({ "data": folder.path().join("data") }), 0).unwrap()
}

fn open() -> (Stores, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Stores::open(&config(&folder)).unwrap(), folder)
}

mod log {
    use super::*;

    async fn open_log() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, TempDir) {
        let (stores, folder) = open();
        (stores.queue(), stores.feed(), folder)
    }

    votes::log_conformance!(open_log);
}

mod book {
    use super::*;

    async fn open_book() -> (Arc<dyn Book>, TempDir) {
        let (stores, folder) = open();
        (stores.book(), folder)
    }

    votes::book_conformance!(open_book);
}

mod tallies {
    use super::*;

    async fn open_tallies() -> (Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        (stores.tallies(), folder)
    }

    votes::tallies_conformance!(open_tallies);
}

mod counting {
    use super::*;

    async fn open_both() -> (Arc<dyn Book>, Arc<dyn Tallies>, TempDir) {
        let (stores, folder) = open();
        (stores.book(), stores.tallies(), folder)
    }

    votes::counting_conformance!(open_both);
}
