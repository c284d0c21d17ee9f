//! Where doors put votes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_channel::oneshot;

use super::Store;
use crate::{Partition, Place, UnixMillis, Vote};

/// The writing end of the vote log.
#[async_trait]
pub trait VoteQueue: Store {
    /// How many partitions the log has: fixed for its life.
    fn partitions(&self) -> u16;

    /// Hands a vote to the log, or refuses at once: never waits.
    ///
    /// Success is *not* an acknowledgement. Only the receipt says that the log has the vote for good.
    ///
    /// # Errors
    /// [`PublishError::Full`] while as many votes as the queue is bounded to are waiting,
    /// [`PublishError::Unavailable`] if the log can't take any.
    fn publish(&self, partition: Partition, vote: Vote) -> Result<PendingReceipt, PublishError>;

    /// Waits until everything that was published has its receipt or its error.
    async fn flush(&self);
}

/// The log's word that it has a vote for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where the vote is.
    pub place: Place,
    /// The record's time.
    pub accepted_at: UnixMillis,
}

/// Why the log gave no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The bounded queue before the log is full.
    #[error("the queue before the vote log is full")]
    Full,
    /// The log did not confirm the vote; it may or may not have it.
    #[error("{0}")]
    Unavailable(String),
}

/// A receipt that is on its way.
#[derive(Debug)]
#[must_use = "a vote is not accepted before its receipt"]
pub struct PendingReceipt(oneshot::Receiver<Result<Receipt, PublishError>>);

impl Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|outcome| {
            outcome
                .unwrap_or_else(|_| Err(PublishError::Unavailable("the vote log stopped before it confirmed".into())))
        })
    }
}

/// What an adapter keeps of a vote it was handed: the place to send its receipt.
pub type ReceiptSender = oneshot::Sender<Result<Receipt, PublishError>>;

/// Both ends of a receipt's way. A sender that is dropped reports the log as unavailable.
pub fn receipt_channel() -> (ReceiptSender, PendingReceipt) {
    let (sender, receiver) = oneshot::channel();
    (sender, PendingReceipt(receiver))
}
