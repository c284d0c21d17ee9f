//! A vote log in memory whose faults a test controls. It is for tests of the code that publishes votes. These tests
//! prove nothing about real logs.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;

use crate::{
    ids::{LogPosition, Offset, Partition},
    ports::{
        DeliveryFuture, DeliverySender, HealthDetails, LogWriter, PublishError, Receipt, Store, StoreError,
        delivery_channel,
    },
    vote::Vote,
};

/// The log. By default, the log confirms each vote at once.
#[derive(Default)]
pub struct FakeLog(Mutex<State>);

#[derive(Default)]
struct State {
    is_holding: bool,
    capacity: Option<usize>,
    is_down: bool,
    pending: VecDeque<(Partition, Vote, DeliverySender)>,
    log: Vec<Vote>,
    wakers: Vec<Waker>,
}

impl FakeLog {
    /// Creates an empty log.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on, votes stay pending until [`release`](Self::release) confirms them.
    pub fn hold(&self) {
        self.state().is_holding = true;
    }

    /// Confirms this number of votes, the oldest first.
    pub fn release(&self, votes: usize) {
        let mut state = self.state();
        for (partition, vote, sender) in state.take_pending(votes) {
            state.confirm(partition, vote, sender);
        }
    }

    /// Confirms all pending votes. Later votes are confirmed at once.
    pub fn release_all(&self) {
        self.state().is_holding = false;
        self.release(usize::MAX);
    }

    /// Refuses votes as [`PublishError::Full`] while this number of votes is pending.
    pub fn set_capacity(&self, votes: usize) {
        self.state().capacity = Some(votes);
    }

    /// Fails this number of pending votes, the oldest first.
    pub fn fail(&self, votes: usize) {
        for (_, _, sender) in self.state().take_pending(votes) {
            let _ = sender.send(Err(PublishError::Unavailable("the log lost its disk".into())));
        }
    }

    /// Refuses every vote from now on.
    pub fn go_down(&self) {
        self.state().is_down = true;
    }

    /// Returns the confirmed votes, in order.
    pub fn log(&self) -> Vec<Vote> {
        self.state().log.clone()
    }

    /// Returns the number of pending votes.
    pub fn pending(&self) -> usize {
        self.state().pending.len()
    }

    /// Waits until exactly this number of votes is pending.
    pub async fn wait_until_pending(&self, votes: usize) {
        self.wait_until(|state| state.pending.len() == votes).await;
    }

    /// Waits until exactly this number of votes is confirmed.
    pub async fn wait_until_logged(&self, votes: usize) {
        self.wait_until(|state| state.log.len() == votes).await;
    }

    async fn wait_until(&self, condition: impl Fn(&State) -> bool) {
        poll_fn(|context| {
            let mut state = self.state();
            if condition(&state) {
                return Poll::Ready(());
            }
            state.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes this number of pending votes, the oldest first.
    fn take_pending(&mut self, votes: usize) -> Vec<(Partition, Vote, DeliverySender)> {
        let votes = votes.min(self.pending.len());
        self.wake_all();
        self.pending.drain(..votes).collect()
    }

    fn confirm(&mut self, partition: Partition, vote: Vote, sender: DeliverySender) {
        let position = LogPosition { partition, offset: Offset(self.log.len() as u64) };
        let receipt = Receipt { position, accepted_at: vote.accepted_at };
        self.log.push(vote);
        self.wake_all();
        let _ = sender.send(Ok(receipt));
    }

    fn wake_all(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

#[async_trait]
impl Store for FakeLog {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        if self.state().is_down { Err(StoreError::new("vote log", "down")) } else { Ok(HealthDetails::new()) }
    }
}

#[async_trait]
impl LogWriter for FakeLog {
    fn partitions(&self) -> u16 {
        12
    }

    fn publish(&self, partition: Partition, vote: Vote) -> Result<DeliveryFuture, PublishError> {
        let mut state = self.state();
        if state.is_down {
            return Err(PublishError::Unavailable("the log is down".into()));
        }
        if state.capacity.is_some_and(|capacity| state.pending.len() >= capacity) {
            return Err(PublishError::Full);
        }
        let (sender, receipt) = delivery_channel();
        if state.is_holding {
            state.pending.push_back((partition, vote, sender));
            state.wake_all();
        } else {
            state.confirm(partition, vote, sender);
        }
        Ok(receipt)
    }

    async fn flush(&self) {
        self.wait_until_pending(0).await;
    }
}
