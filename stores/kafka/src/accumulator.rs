//! Hands the votes of all partitions to librdkafka together.
//!
//! librdkafka batches the records of each partition separately. At thousands of votes per second, each partition has
//! only a few records at a time, and librdkafka would send those of each partition at a different time. Each request
//! wakes threads of a broker, of librdkafka and of the producer. Waking a thread costs more than the work that the
//! thread then does. So one thread here hands the records of all partitions to librdkafka together, and handles the
//! delivery reports together. A vote that arrives alone is handed over without delay.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use votes::{Partition, Vote};

/// A vote that librdkafka does not have yet.
pub(super) struct PendingRecord {
    /// The number that librdkafka returns in the delivery report of the record.
    pub(super) opaque: usize,
    pub(super) partition: Partition,
    pub(super) vote: Vote,
}

/// The Kafka client that the accumulator's thread hands records to.
pub(super) trait RecordSink: Send + Sync + 'static {
    /// Hands a record to the Kafka client.
    fn produce(&self, record: PendingRecord);

    /// Polls the Kafka client, and passes each delivery report to the caller that waits for it.
    fn poll_events(&self);

    /// Returns whether a record has no delivery report yet.
    fn has_in_flight(&self) -> bool;
}

/// The number of waiting records that ends the linger early: about three for each of the default twelve partitions.
const FULL_BATCH: usize = 40;

/// The number of records below which a batch is small. After a small batch the thread polls every [`POLL_INTERVAL`], so
/// that a vote that arrived alone gets its receipt soon.
const SMALL_BATCH: usize = 8;

/// The time between two polls after a small or a full batch. After a batch of another size the time is half of the
/// linger, so that the delivery reports of the batch are handled together.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The time between two polls while no record is in flight. The polls also handle events that are no delivery reports.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The records that wait to be produced, and the thread that produces them. [`InFlight`](crate::in_flight::InFlight),
/// which gives each record its opaque, limits their number.
pub(super) struct RecordAccumulator {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    pending: Vec<PendingRecord>,
    is_closed: bool,
}

impl RecordAccumulator {
    /// Starts the thread. After each batch of records, the thread waits until `linger` has passed or a full batch is
    /// waiting.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub(super) fn start(linger: Duration, sink: Arc<impl RecordSink>) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let thread = thread::Builder::new().name("accumulator".to_owned()).spawn({
            let state = Arc::clone(&state);
            move || state.run(linger, &*sink)
        })?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Appends a record. Never waits.
    pub(super) fn append(&self, record: PendingRecord) {
        let mut queue = self.state.queue();
        queue.pending.push(record);
        // The thread checks the queue before it waits, so the first record of a batch is enough to wake it.
        if queue.pending.len() == 1 {
            self.state.changed.notify_one();
        }
    }
}

impl State {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Produces records and polls the sink, until the accumulator is closed and no record is waiting.
    fn run(&self, linger: Duration, sink: &impl RecordSink) {
        let mut batch = Vec::new();
        let mut last_batch: Option<Instant> = None;
        let mut poll_interval = POLL_INTERVAL;
        loop {
            let is_lingering =
                last_batch.is_some_and(|at| at.elapsed() < linger) && self.queue().pending.len() < FULL_BATCH;
            if !is_lingering {
                let is_closed = self.drain_into(&mut batch);
                if !batch.is_empty() {
                    last_batch = Some(Instant::now());
                    let is_medium = (SMALL_BATCH..FULL_BATCH).contains(&batch.len());
                    poll_interval = if is_medium { POLL_INTERVAL.max(linger / 2) } else { POLL_INTERVAL };
                    batch.drain(..).for_each(|record| sink.produce(record));
                } else if is_closed {
                    return;
                }
            }
            sink.poll_events();
            if is_lingering || sink.has_in_flight() {
                thread::sleep(poll_interval);
            } else {
                self.wait();
            }
        }
    }

    /// Moves the waiting records to `batch`, which must be empty. Returns whether the accumulator is closed.
    fn drain_into(&self, batch: &mut Vec<PendingRecord>) -> bool {
        let mut queue = self.queue();
        std::mem::swap(&mut queue.pending, batch);
        queue.is_closed
    }

    /// Waits for a record, at most for [`IDLE_POLL_INTERVAL`].
    fn wait(&self) {
        let is_idle = |queue: &mut Queue| queue.pending.is_empty() && !queue.is_closed;
        // The caller checks the queue next, so it does not matter what ended the wait.
        drop(self.changed.wait_timeout_while(self.queue(), IDLE_POLL_INTERVAL, is_idle));
    }
}

impl Drop for RecordAccumulator {
    /// Produces the remaining records, after the linger. Blocks until the thread has ended.
    fn drop(&mut self) {
        self.state.queue().is_closed = true;
        self.state.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the record accumulator panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    };

    use votes::conformance::logged;

    use super::*;

    /// A sink that sends the opaques of the produced records to the test.
    struct FakeSink {
        produced: Sender<usize>,
        has_in_flight: AtomicBool,
    }

    impl RecordSink for FakeSink {
        fn produce(&self, record: PendingRecord) {
            self.produced.send(record.opaque).unwrap();
        }

        fn poll_events(&self) {}

        fn has_in_flight(&self) -> bool {
            self.has_in_flight.load(Ordering::Relaxed)
        }
    }

    fn record(opaque: usize) -> PendingRecord {
        let vote = logged(opaque as u64, Partition(0), 0).vote;
        PendingRecord { opaque, partition: Partition(0), vote }
    }

    #[test]
    fn dropping_the_accumulator_produces_the_remaining_records_in_order() {
        let (sender, produced) = mpsc::channel();
        let sink = Arc::new(FakeSink { produced: sender, has_in_flight: true.into() });
        let accumulator = RecordAccumulator::start(Duration::from_millis(1), sink).unwrap();
        (0..1_000).for_each(|opaque| accumulator.append(record(opaque)));
        drop(accumulator);
        assert_eq!(produced.iter().collect::<Vec<_>>(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn only_a_record_that_soon_follows_another_one_lingers() {
        let (sender, produced) = mpsc::channel();
        let sink = Arc::new(FakeSink { produced: sender, has_in_flight: false.into() });
        // The linger is longer than the test, so a record that lingers is not produced during the test.
        let accumulator = RecordAccumulator::start(Duration::from_hours(1), sink).unwrap();
        accumulator.append(record(1));
        assert_eq!(produced.recv_timeout(Duration::from_mins(1)), Ok(1));
        accumulator.append(record(2));
        assert!(produced.recv_timeout(IDLE_POLL_INTERVAL * 3).is_err());
        // Dropping the accumulator would wait for the end of the linger.
        std::mem::forget(accumulator);
    }

    #[test]
    fn a_full_batch_does_not_linger() {
        let (sender, produced) = mpsc::channel();
        let sink = Arc::new(FakeSink { produced: sender, has_in_flight: false.into() });
        let accumulator = RecordAccumulator::start(Duration::from_hours(1), sink).unwrap();
        accumulator.append(record(0));
        assert_eq!(produced.recv_timeout(Duration::from_mins(1)), Ok(0));
        (1..=FULL_BATCH).for_each(|opaque| accumulator.append(record(opaque)));
        for opaque in 1..=FULL_BATCH {
            assert_eq!(produced.recv_timeout(Duration::from_mins(1)), Ok(opaque));
        }
        std::mem::forget(accumulator);
    }
}
