//! Votes that were published and have no receipt yet.
//!
//! Each vote has three things here: a number that librdkafka returns in the delivery report (librdkafka calls the number
//! the opaque), a sender for the outcome, and the time at which the wait began. librdkafka also has a time-out for each record. But after librdkafka has lost a
//! broker, it may report the time-out many seconds late, so votes also time out here.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use metrics::Gauge;
use tokio::sync::Notify;
use votes::{DeliverySender, LogPosition, PublishError, Receipt, UnixMillis};

/// The opaque of a record, and the position of the record on the log or the error.
pub(super) type DeliveryReport = (usize, Result<LogPosition, PublishError>);

/// The votes in flight, oldest first.
pub(super) struct InFlight {
    state: Mutex<State>,
    max_votes: usize,
    emptied: Notify,
    queued_votes: Gauge,
}

#[derive(Default)]
struct State {
    /// The opaque of the first entry. The opaques of the other entries follow without gaps.
    first: usize,
    entries: VecDeque<Entry>,
    /// The number of outcomes that were taken from the entries and are being sent to their receivers.
    notifying: usize,
}

impl State {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.notifying == 0
    }
}

type Notification = (DeliverySender, Result<Receipt, PublishError>);

struct Entry {
    since: Instant,
    accepted_at: UnixMillis,
    /// `None` once the vote is completed or has timed out.
    sender: Option<DeliverySender>,
}

impl InFlight {
    /// Creates an empty set that takes at most `max_votes` votes. The gauge `queued_votes` shows the number of entries.
    ///
    /// The entry of a completed vote is removed only when all older votes are completed or have timed out.
    pub(super) fn new(max_votes: usize, queued_votes: Gauge) -> Self {
        Self { state: Mutex::default(), max_votes, emptied: Notify::new(), queued_votes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a vote and returns its opaque, or `None` if the set is full.
    pub(super) fn add(&self, accepted_at: UnixMillis, sender: DeliverySender) -> Option<usize> {
        let mut state = self.state();
        if state.entries.len() >= self.max_votes {
            return None;
        }
        state.entries.push_back(Entry { since: Instant::now(), accepted_at, sender: Some(sender) });
        self.queued_votes.set(state.entries.len() as f64);
        Some(state.first.wrapping_add(state.entries.len() - 1))
    }

    /// Sends the outcome of each report to the receiver of its vote. Ignores the report of a vote that has timed out.
    pub(super) fn complete(&self, reports: impl IntoIterator<Item = DeliveryReport>) {
        let mut state = self.state();
        let notifications = reports.into_iter().filter_map(|(opaque, outcome)| {
            let index = opaque.wrapping_sub(state.first);
            let (sender, accepted_at) = state.entries.get_mut(index)?.take()?;
            Some((sender, outcome.map(|position| Receipt { position, accepted_at })))
        });
        let notifications = notifications.collect();
        self.notify(state, notifications);
    }

    /// Ends the wait of all votes that have waited longer than `timeout`, and returns their number. Kafka may have stored
    /// such a vote or not.
    pub(super) fn time_out(&self, timeout: Duration) -> usize {
        let mut state = self.state();
        let overdue = state.entries.iter_mut().take_while(|entry| entry.since.elapsed() > timeout);
        let notifications = overdue.filter_map(|entry| {
            let problem = format!("Kafka did not confirm the vote within {timeout:?}");
            Some((entry.take()?.0, Err(PublishError::Unavailable(problem))))
        });
        let notifications: Vec<Notification> = notifications.collect();
        let count = notifications.len();
        self.notify(state, notifications);
        count
    }

    /// Removes the finished entries at the front, and sends the outcomes to their receivers.
    fn notify(&self, mut state: MutexGuard<'_, State>, notifications: Vec<Notification>) {
        if notifications.is_empty() {
            return;
        }
        while state.entries.front().is_some_and(|entry| entry.sender.is_none()) {
            state.entries.pop_front();
            state.first = state.first.wrapping_add(1);
        }
        self.queued_votes.set(state.entries.len() as f64);
        let count = notifications.len();
        state.notifying += count;
        // Release the lock first: a woken task publishes its next vote at once, and needs the lock.
        drop(state);
        for (sender, outcome) in notifications {
            // The caller may have dropped the receiver. This does not change what is on the log.
            let _ = sender.send(outcome);
        }
        let mut state = self.state();
        state.notifying -= count;
        if state.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until every vote has its outcome, and every receiver was notified.
    pub(super) async fn flush(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.state().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}

impl Entry {
    /// Takes the sender, and returns it with the time of acceptance. Returns `None` if the sender was taken before.
    fn take(&mut self) -> Option<(DeliverySender, UnixMillis)> {
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

    use votes::{Offset, Partition, delivery_channel};

    use super::*;

    const NOW: UnixMillis = UnixMillis(7);

    fn position(offset: u64) -> LogPosition {
        LogPosition { partition: Partition(0), offset: Offset(offset) }
    }

    #[tokio::test]
    async fn each_vote_gets_its_own_receipt_whatever_the_order_of_the_reports() {
        let in_flight = InFlight::new(10, Gauge::noop());
        let (mut opaques, mut receipts) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (sender, receipt) = delivery_channel();
            opaques.push(in_flight.add(NOW, sender).unwrap());
            receipts.push(receipt);
        }
        for index in [2, 0, 1] {
            in_flight.complete([(opaques[index], Ok(position(index as u64)))]);
        }
        in_flight.flush().await;
        for (index, receipt) in receipts.into_iter().enumerate() {
            assert_eq!(receipt.await, Ok(Receipt { position: position(index as u64), accepted_at: NOW }));
        }
        in_flight.complete([(opaques[1], Ok(position(9)))]);
    }

    /// A waker that records, each time a receipt wakes it, whether `flush` would return.
    struct FlushObserver {
        in_flight: Arc<InFlight>,
        observed: Mutex<Vec<bool>>,
    }

    impl Wake for FlushObserver {
        fn wake(self: Arc<Self>) {
            let flush = pin!(self.in_flight.flush());
            let is_flushed = flush.poll(&mut Context::from_waker(Waker::noop())).is_ready();
            self.observed.lock().unwrap().push(is_flushed);
        }
    }

    #[test]
    fn flush_waits_until_every_receiver_is_notified() {
        let in_flight = Arc::new(InFlight::new(10, Gauge::noop()));
        let observer = Arc::new(FlushObserver { in_flight: Arc::clone(&in_flight), observed: Mutex::default() });
        let waker = Waker::from(Arc::clone(&observer));
        let (mut opaques, mut receipts) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (sender, receipt) = delivery_channel();
            opaques.push(in_flight.add(NOW, sender).unwrap());
            let mut receipt = Box::pin(receipt);
            assert!(receipt.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            receipts.push(receipt);
        }
        in_flight.complete(opaques.into_iter().map(|opaque| (opaque, Ok(position(0)))));
        assert_eq!(*observer.observed.lock().unwrap(), [false, false]);
        assert!(in_flight.state().is_empty());
    }

    #[tokio::test]
    async fn votes_in_flight_are_bounded_and_time_out() {
        let in_flight = InFlight::new(1, Gauge::noop());
        let (sender, receipt) = delivery_channel();
        in_flight.add(NOW, sender).unwrap();
        assert_eq!(in_flight.add(NOW, delivery_channel().0), None);
        assert_eq!(in_flight.time_out(Duration::ZERO), 1);
        assert!(matches!(receipt.await, Err(PublishError::Unavailable(_))));
        assert!(in_flight.add(NOW, delivery_channel().0).is_some());
    }
}
