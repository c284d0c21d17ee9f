//! A vote log in memory whose faults are commanded, to try what stands before a log. It proves nothing about real ones.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;

use crate::{
    Facts, Offset, Partition, PendingReceipt, Place, PublishError, Receipt, ReceiptSender, Store, StoreError, Vote,
    VoteQueue, receipt_channel,
};

/// The log. At first it confirms each vote at once.
#[derive(Default)]
pub struct FakeQueue(Mutex<State>);

#[derive(Default)]
struct State {
    is_holding: bool,
    capacity: Option<usize>,
    is_down: bool,
    waiting: VecDeque<(Partition, Vote, ReceiptSender)>,
    log: Vec<Vote>,
    watchers: Vec<Waker>,
}

impl FakeQueue {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on votes wait for [`release`](Self::release).
    pub fn hold(&self) {
        self.state().is_holding = true;
    }

    /// Confirms the votes that have waited longest.
    pub fn release(&self, votes: usize) {
        let mut state = self.state();
        for (partition, vote, sender) in state.take_waiting(votes) {
            state.confirm(partition, vote, sender);
        }
    }

    /// Confirms everything, and from now on each vote at once.
    pub fn release_all(&self) {
        self.state().is_holding = false;
        self.release(usize::MAX);
    }

    /// Refuses as full while so many votes wait.
    pub fn set_capacity(&self, votes: usize) {
        self.state().capacity = Some(votes);
    }

    /// Fails the votes that have waited longest.
    pub fn fail(&self, votes: usize) {
        for (_, _, sender) in self.state().take_waiting(votes) {
            let _ = sender.send(Err(PublishError::Unavailable("the log lost its disk".into())));
        }
    }

    /// From now on takes no votes.
    pub fn go_down(&self) {
        self.state().is_down = true;
    }

    /// The votes that were confirmed, in order.
    pub fn log(&self) -> Vec<Vote> {
        self.state().log.clone()
    }

    /// How many votes wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Waits until so many votes wait for their receipts.
    pub async fn until_waiting(&self, votes: usize) {
        self.until(|state| state.waiting.len() == votes).await;
    }

    /// Waits until so many votes are confirmed.
    pub async fn until_logged(&self, votes: usize) {
        self.until(|state| state.log.len() == votes).await;
    }

    async fn until(&self, condition: impl Fn(&State) -> bool) {
        poll_fn(|context| {
            let mut state = self.state();
            if condition(&state) {
                return Poll::Ready(());
            }
            state.watchers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_waiting(&mut self, votes: usize) -> Vec<(Partition, Vote, ReceiptSender)> {
        let votes = votes.min(self.waiting.len());
        self.changed();
        self.waiting.drain(..votes).collect()
    }

    fn confirm(&mut self, partition: Partition, vote: Vote, sender: ReceiptSender) {
        let place = Place { partition, offset: Offset(self.log.len() as u64) };
        let receipt = Receipt { place, accepted_at: vote.accepted_at };
        self.log.push(vote);
        self.changed();
        let _ = sender.send(Ok(receipt));
    }

    fn changed(&mut self) {
        self.watchers.drain(..).for_each(Waker::wake);
    }
}

#[async_trait]
impl Store for FakeQueue {
    async fn check(&self) -> Result<Facts, StoreError> {
        if self.state().is_down { Err(StoreError::new("vote log", "down")) } else { Ok(Facts::new()) }
    }
}

#[async_trait]
impl VoteQueue for FakeQueue {
    fn partitions(&self) -> u16 {
        12
    }

    fn publish(&self, partition: Partition, vote: Vote) -> Result<PendingReceipt, PublishError> {
        let mut state = self.state();
        if state.is_down {
            return Err(PublishError::Unavailable("the log is down".into()));
        }
        if state.capacity.is_some_and(|capacity| state.waiting.len() >= capacity) {
            return Err(PublishError::Full);
        }
        let (sender, receipt) = receipt_channel();
        if state.is_holding {
            state.waiting.push_back((partition, vote, sender));
            state.changed();
        } else {
            state.confirm(partition, vote, sender);
        }
        Ok(receipt)
    }

    async fn flush(&self) {
        self.until_waiting(0).await;
    }
}
