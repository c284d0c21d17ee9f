//! Votes that were handed to Kafka and have no receipt yet.
//!
//! Each has a number that travels with the record as its opaque, its sender, and a deadline of ours: the client library keeps
//! its own time, but after a lost broker it may keep a caller waiting for many seconds.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use metrics::Gauge;
use tokio::sync::Notify;
use votes::{Place, PublishError, Receipt, ReceiptSender, UnixMillis};

use crate::meters;

/// What became of a vote, by the number of its receipt.
pub(super) type Outcome = (usize, Result<Place, PublishError>);

/// Open receipts, oldest first.
pub(super) struct Receipts {
    open: Mutex<Open>,
    most: usize,
    settled: Notify,
    waiting: Gauge,
}

#[derive(Default)]
struct Open {
    /// The number of the first entry.
    first: usize,
    entries: VecDeque<Entry>,
    /// Answers on their way to their senders.
    untold: usize,
}

impl Open {
    fn is_settled(&self) -> bool {
        self.entries.is_empty() && self.untold == 0
    }
}

type Answer = (ReceiptSender, Result<Receipt, PublishError>);

struct Entry {
    since: Instant,
    accepted_at: UnixMillis,
    /// `None` once it is answered.
    sender: Option<ReceiptSender>,
}

impl Receipts {
    pub(super) fn new(most: usize) -> Self {
        Self { open: Mutex::default(), most, settled: Notify::new(), waiting: meters::queue(most) }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a sender and gives it a number; `None` while as many votes as the bound allows have no receipt.
    pub(super) fn add(&self, accepted_at: UnixMillis, sender: ReceiptSender) -> Option<usize> {
        let mut open = self.open();
        if open.entries.len() >= self.most {
            return None;
        }
        open.entries.push_back(Entry { since: Instant::now(), accepted_at, sender: Some(sender) });
        self.waiting.set(open.entries.len() as f64);
        Some(open.first.wrapping_add(open.entries.len() - 1))
    }

    /// Answers those that still wait, by their numbers.
    pub(super) fn settle(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        let mut open = self.open();
        let answers = outcomes.into_iter().filter_map(|(number, outcome)| {
            let index = number.wrapping_sub(open.first);
            let (sender, accepted_at) = open.entries.get_mut(index)?.take()?;
            Some((sender, outcome.map(|place| Receipt { place, accepted_at })))
        });
        let answers = answers.collect();
        self.tell(open, answers);
    }

    /// Answers all that have waited longer than `patience`: whether Kafka has those votes is not known. Returns how many.
    pub(super) fn expire(&self, patience: Duration) -> usize {
        let mut open = self.open();
        let late = open.entries.iter_mut().take_while(|entry| entry.since.elapsed() > patience);
        let answers = late.filter_map(|entry| {
            let problem = format!("Kafka did not confirm the vote within {patience:?}");
            Some((entry.take()?.0, Err(PublishError::Unavailable(problem))))
        });
        let answers: Vec<Answer> = answers.collect();
        let count = answers.len();
        self.tell(open, answers);
        count
    }

    fn tell(&self, mut open: MutexGuard<'_, Open>, answers: Vec<Answer>) {
        if answers.is_empty() {
            return;
        }
        while open.entries.front().is_some_and(|entry| entry.sender.is_none()) {
            open.entries.pop_front();
            open.first = open.first.wrapping_add(1);
        }
        self.waiting.set(open.entries.len() as f64);
        let told = answers.len();
        open.untold += told;
        drop(open);
        // Whoever wakes puts his next vote in line, so nobody is woken under the lock.
        for (sender, outcome) in answers {
            // Whoever no longer listens has lost interest, not the vote.
            let _ = sender.send(outcome);
        }
        let mut open = self.open();
        open.untold -= told;
        if open.is_settled() {
            self.settled.notify_waiters();
        }
    }

    /// Waits until each has its answer.
    pub(super) async fn all_settled(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.open().is_settled() {
                return;
            }
            settled.await;
        }
    }
}

impl Entry {
    /// Whom to answer; `None` if that was done before.
    fn take(&mut self) -> Option<(ReceiptSender, UnixMillis)> {
        Some((self.sender.take()?, self.accepted_at))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::Arc,
        task::{Context, Wake, Waker},
    };

    use votes::{Offset, Partition, receipt_channel};

    use super::*;

    const NOW: UnixMillis = UnixMillis(7);

    fn place(offset: u64) -> Place {
        Place { partition: Partition(0), offset: Offset(offset) }
    }

    #[tokio::test]
    async fn receipts_reach_their_senders_in_any_order() {
        let receipts = Receipts::new(10);
        let (mut numbers, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (sender, pending) = receipt_channel();
            numbers.push(receipts.add(NOW, sender).unwrap());
            waiting.push(pending);
        }
        for index in [2, 0, 1] {
            receipts.settle([(numbers[index], Ok(place(index as u64)))]);
        }
        receipts.all_settled().await;
        for (index, pending) in waiting.into_iter().enumerate() {
            assert_eq!(pending.await, Ok(Receipt { place: place(index as u64), accepted_at: NOW }));
        }
        receipts.settle([(numbers[1], Ok(place(9)))]);
    }

    /// Woken by an answer, it notes whether others are still to come.
    struct Listener {
        receipts: Arc<Receipts>,
        heard: Mutex<Vec<bool>>,
    }

    impl Wake for Listener {
        fn wake(self: Arc<Self>) {
            let all_settled = pin!(self.receipts.all_settled());
            let is_settled = all_settled.poll(&mut Context::from_waker(Waker::noop())).is_ready();
            self.heard.lock().unwrap().push(is_settled);
        }
    }

    #[test]
    fn nothing_is_settled_before_everybody_is_told() {
        let receipts = Arc::new(Receipts::new(10));
        let listener = Arc::new(Listener { receipts: Arc::clone(&receipts), heard: Mutex::default() });
        let waker = Waker::from(Arc::clone(&listener));
        let (mut numbers, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (sender, pending) = receipt_channel();
            numbers.push(receipts.add(NOW, sender).unwrap());
            let mut pending = Box::pin(pending);
            assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            waiting.push(pending);
        }
        receipts.settle(numbers.into_iter().map(|number| (number, Ok(place(0)))));
        assert_eq!(*listener.heard.lock().unwrap(), [false, false]);
        assert!(receipts.open().is_settled());
    }

    #[tokio::test]
    async fn open_receipts_are_bounded_and_expire() {
        let receipts = Receipts::new(1);
        let (sender, pending) = receipt_channel();
        receipts.add(NOW, sender).unwrap();
        assert_eq!(receipts.add(NOW, receipt_channel().0), None);
        assert_eq!(receipts.expire(Duration::ZERO), 1);
        assert!(matches!(pending.await, Err(PublishError::Unavailable(_))));
        assert!(receipts.add(NOW, receipt_channel().0).is_some());
    }
}
