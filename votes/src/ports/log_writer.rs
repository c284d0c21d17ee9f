//! The port through which producers publish votes.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_channel::oneshot;

use super::store::Store;
use crate::{
    ids::{LogPosition, Partition, UnixMillis},
    vote::Vote,
};

/// The writing end of the vote log.
#[async_trait]
pub trait LogWriter: Store {
    /// Returns the number of partitions of the log. It never changes.
    fn partitions(&self) -> u16;

    /// Returns the partition in which the next vote costs the least, or `None` if the partition makes no difference. It
    /// changes all the time. A producer that creates the id of a vote [chooses](Vote::draw_id) an id of this partition.
    fn preferred_partition(&self) -> Option<Partition> {
        None
    }

    /// Gives a vote to the log writer, or fails at once. This call never waits.
    ///
    /// Success is *not* an acknowledgement. Only the receipt confirms that the vote is durable on the log.
    ///
    /// # Errors
    /// [`PublishError::Full`] while the maximum number of votes is waiting for receipts,
    /// [`PublishError::Unavailable`] if the log accepts no votes.
    fn publish(&self, partition: Partition, vote: Vote) -> Result<DeliveryFuture, PublishError>;

    /// Waits until every published vote has its receipt or its error.
    async fn flush(&self);
}

/// The log's confirmation that a vote is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The position of the vote on the log.
    pub position: LogPosition,
    /// The time of the record.
    pub accepted_at: UnixMillis,
}

/// Why there is no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The bounded queue of the log writer is full.
    #[error("the queue of the vote log is full")]
    Full,
    /// The log did not confirm the vote. The log may have the vote or not.
    #[error("{0}")]
    Unavailable(String),
}

/// The future receipt of a published vote.
#[derive(Debug)]
#[must_use = "a vote is not accepted before its receipt"]
pub struct DeliveryFuture(oneshot::Receiver<Result<Receipt, PublishError>>);

impl Future for DeliveryFuture {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|outcome| {
            outcome.unwrap_or_else(|_| {
                Err(PublishError::Unavailable("the vote log stopped before it confirmed the vote".into()))
            })
        })
    }
}

/// The sending end of a [`DeliveryFuture`]. An adapter sends the receipt of the published vote with it.
pub type DeliverySender = oneshot::Sender<Result<Receipt, PublishError>>;

/// Creates both ends. If the sender is dropped, the future reports the log as unavailable.
pub fn delivery_channel() -> (DeliverySender, DeliveryFuture) {
    let (sender, receiver) = oneshot::channel();
    (sender, DeliveryFuture(receiver))
}
