//! The ports. Each is a trait that `backends` implements, with one conformance suite that every adapter passes.

mod answers;
mod archive;
mod book;
mod datasets;
mod feed;
mod imports;
mod objects;
mod queue;
mod tallies;

use std::collections::BTreeMap;

use async_trait::async_trait;

pub use answers::{Answers, KeptAnswer, Lookup};
pub use archive::{Archive, Found, Page, Table};
pub use book::{Advanced, Book, Checkpoint, LoggedVote, Repeat, Summary};
pub use datasets::{Dataset, DatasetId, DatasetRow, Datasets};
pub use feed::{Assignment, Batch, Bounds, DeadLetter, Poison, Record, VoteFeed};
pub use imports::{ChunkQueue, ImportProgress, Imports};
pub use objects::{ObjectWriter, Objects};
pub use queue::{PendingReceipt, PublishError, Receipt, ReceiptSender, VoteQueue, receipt_channel};
pub use tallies::{Added, Snapshot, Tallies};

/// What a store says of itself for people to check, like `acks` = `all`. Shown at `/health`.
pub type Facts = BTreeMap<&'static str, String>;

/// What every port has.
#[async_trait]
pub trait Store: Send + Sync {
    /// Whether the store does its work now, and what it says of itself.
    async fn check(&self) -> Result<Facts, StoreError>;
}

/// A store that did not do what was asked of it. Whether it was done nevertheless is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{store}: {problem}")]
pub struct StoreError {
    /// Which store: `vote log`, `book`, `tallies`, `archive`, `datasets`, `answers`, `imports`, `objects`.
    pub store: &'static str,
    /// What happened, in the driver's words.
    pub problem: String,
}

impl StoreError {
    /// An error of a driver.
    pub fn new(store: &'static str, problem: impl std::fmt::Display) -> Self {
        Self { store, problem: problem.to_string() }
    }
}
