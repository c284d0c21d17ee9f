//! Votes between the doors and the client library, and back.
//!
//! The library collects the records of each partition apart, so that at some thousand votes a second it would send each
//! partition's few records at a time of their own, and wake brokers, itself and the doors for each. Here one thread hands
//! over the votes of all partitions at once, and hears of all that was confirmed at once: what wakes somebody costs more
//! than what he does then. A vote that comes alone leaves at once.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use votes::{Partition, Vote};

/// A vote on its way to the library.
pub(super) struct Outgoing {
    /// Of its receipt.
    pub(super) number: usize,
    pub(super) partition: Partition,
    pub(super) vote: Vote,
}

/// What the thread drives.
pub(super) trait Library: Send + Sync + 'static {
    /// Takes a vote.
    fn hand_over(&self, vote: Outgoing);

    /// Tells whoever waits what was confirmed since.
    fn hear(&self);

    /// Whether something is not confirmed yet.
    fn is_busy(&self) -> bool;
}

/// So many votes need not wait for the pace: they are some for each partition of the usual dozen.
const FULL: usize = 40;

/// So few votes are answered as soon as they are confirmed: a vote that came alone waits for nothing.
const FEW: usize = 8;

/// How often the thread looks while many or few votes come; in between it is twice for each pace, so that what was confirmed
/// is answered together.
const LOOK: Duration = Duration::from_millis(1);

/// How often it hears what else the library has to say, while nothing is.
const IDLE: Duration = Duration::from_millis(100);

/// The votes that wait, and the thread that takes them. Bounded by whoever gives out the receipts' numbers.
pub(super) struct Outbox {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Outgoing>,
    is_closed: bool,
}

impl Outbox {
    /// Hands over all that waits, and then again after `pace`, or when there is enough.
    pub(super) fn start(pace: Duration, library: Arc<impl Library>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("outbox".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.drive(pace, &*library)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Puts a vote in line; never waits.
    pub(super) fn put(&self, vote: Outgoing) {
        let mut line = self.shared.line();
        line.waiting.push(vote);
        // The thread looks again before it waits.
        if line.waiting.len() == 1 {
            self.shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, pace: Duration, library: &impl Library) {
        let mut votes = Vec::new();
        let mut handed_over: Option<Instant> = None;
        let mut look = LOOK;
        loop {
            let is_early = handed_over.is_some_and(|at| at.elapsed() < pace) && self.line().waiting.len() < FULL;
            if !is_early {
                let is_closed = self.take(&mut votes);
                if !votes.is_empty() {
                    handed_over = Some(Instant::now());
                    look = if (FEW..FULL).contains(&votes.len()) { LOOK.max(pace / 2) } else { LOOK };
                    votes.drain(..).for_each(|vote| library.hand_over(vote));
                } else if is_closed {
                    return;
                }
            }
            library.hear();
            if is_early || library.is_busy() {
                thread::sleep(look);
            } else {
                self.wait();
            }
        }
    }

    /// Takes the votes that wait, and says whether there will be no more.
    fn take(&self, votes: &mut Vec<Outgoing>) -> bool {
        let mut line = self.line();
        std::mem::swap(&mut line.waiting, votes);
        line.is_closed
    }

    /// Waits for a vote, but not for ever.
    fn wait(&self) {
        let is_idle = |line: &mut Line| line.waiting.is_empty() && !line.is_closed;
        // Whether it was one or not is seen next.
        drop(self.changed.wait_timeout_while(self.line(), IDLE, is_idle));
    }
}

impl Drop for Outbox {
    /// Hands over the rest.
    fn drop(&mut self) {
        self.shared.line().is_closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the outbox's thread failed");
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

    /// Passes the numbers of votes on.
    struct Fake {
        left: Sender<usize>,
        is_busy: AtomicBool,
    }

    impl Library for Fake {
        fn hand_over(&self, vote: Outgoing) {
            self.left.send(vote.number).unwrap();
        }

        fn hear(&self) {}

        fn is_busy(&self) -> bool {
            self.is_busy.load(Ordering::Relaxed)
        }
    }

    fn outgoing(number: usize) -> Outgoing {
        let vote = logged(number as u64, Partition(0), 0).vote;
        Outgoing { number, partition: Partition(0), vote }
    }

    #[test]
    fn votes_leave_in_order_and_the_rest_leaves_at_the_end() {
        let (left, leaving) = mpsc::channel();
        let library = Arc::new(Fake { left, is_busy: true.into() });
        let outbox = Outbox::start(Duration::from_millis(1), library).unwrap();
        (0..1_000).for_each(|number| outbox.put(outgoing(number)));
        drop(outbox);
        assert_eq!(leaving.iter().collect::<Vec<_>>(), (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn only_votes_that_follow_another_wait_for_the_pace() {
        let (left, leaving) = mpsc::channel();
        let library = Arc::new(Fake { left, is_busy: false.into() });
        // The pace is longer than the test: only a vote that waits for nothing gets through.
        let outbox = Outbox::start(Duration::from_hours(1), library).unwrap();
        outbox.put(outgoing(1));
        assert_eq!(leaving.recv_timeout(Duration::from_mins(1)), Ok(1));
        outbox.put(outgoing(2));
        assert!(leaving.recv_timeout(IDLE * 3).is_err());
        // Its thread would end after the pace.
        std::mem::forget(outbox);
    }

    #[test]
    fn many_votes_do_not_wait_for_the_pace() {
        let (left, leaving) = mpsc::channel();
        let library = Arc::new(Fake { left, is_busy: false.into() });
        let outbox = Outbox::start(Duration::from_hours(1), library).unwrap();
        outbox.put(outgoing(0));
        assert_eq!(leaving.recv_timeout(Duration::from_mins(1)), Ok(0));
        (1..=FULL).for_each(|number| outbox.put(outgoing(number)));
        for number in 1..=FULL {
            assert_eq!(leaving.recv_timeout(Duration::from_mins(1)), Ok(number));
        }
        std::mem::forget(outbox);
    }
}
