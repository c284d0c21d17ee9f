//! Answers that are kept, so that a question which comes again costs the archive nothing.

use async_trait::async_trait;
use std::time::Duration;

use super::Store;
use crate::{StoreError, UnixMillis};

/// A bounded store of answers by the text of their question. It may forget anything at any time: what it keeps least long goes first
/// when it is full.
#[async_trait]
pub trait Answers: Store {
    /// The tallies' version now, and what is kept for this question.
    async fn look_up(&self, question: &str) -> Result<Lookup, StoreError>;

    /// Keeps an answer for so long.
    async fn keep(&self, question: &str, answer: &KeptAnswer, for_time: Duration) -> Result<(), StoreError>;

    /// Keeps what is kept for so long from now on.
    async fn prolong(&self, question: &str, for_time: Duration) -> Result<(), StoreError>;

    /// Forgets all answers. Returns how many there were.
    async fn forget(&self) -> Result<u64, StoreError>;

    /// Notes which questions are asked most, with how much each is, so that whoever starts next begins with these.
    async fn note_popular(&self, questions: &[(String, f64)]) -> Result<(), StoreError>;

    /// The questions that were noted, the most asked first.
    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError>;
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The tallies' version.
    pub version: u64,
    /// An answer, of this version or another.
    pub kept: Option<KeptAnswer>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The version of what it depends on, read before the answer was.
    pub version: u64,
    /// When that was read.
    pub read_at: UnixMillis,
    /// The answer.
    pub body: Vec<u8>,
}
