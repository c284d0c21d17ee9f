//! The embedded stores keep every promise of the ports.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backends::{Settings, Stores};
use tempfile::TempDir;
use votes::{Book, Tallies, VoteFeed, VoteQueue};

fn settings(folder: &TempDir) -> Settings {
    Settings {
        data: folder.path().join("data"),
        queue: "embedded:".into(),
        tally: "embedded:".into(),
        book: "embedded:".into(),
        queue_votes: 1_000,
    }
}

fn open() -> (Stores, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Stores::open(&settings(&folder)).unwrap(), folder)
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
