//! Many askers, one reading.

use std::future::Future;

use tokio::{sync::Mutex, time::Instant};
use votes::StoreError;

/// A question that is put to a store once at a time, however many ask it.
///
/// Whoever asks gets an answer that was begun after they asked, so nobody sees less than they could know; those who
/// waited together share it, so a thousand askers cost a store no more than one who asks again and again.
pub(crate) struct Shared<T>(Mutex<Option<Reading<T>>>);

struct Reading<T> {
    begun: Instant,
    outcome: Result<T, StoreError>,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    pub(crate) async fn read(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let asked = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(reading) = last.as_ref().filter(|reading| reading.begun > asked) {
            return reading.outcome.clone();
        }
        let begun = Instant::now();
        let outcome = read.await;
        *last = Some(Reading { begun, outcome: outcome.clone() });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::{join, join_all};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_together_share_one_reading_that_began_after_they_asked() {
        let (shared, gate, begun) = (Shared::default(), Semaphore::new(0), AtomicUsize::new(0));
        let read = || {
            shared.read(async {
                let nth = begun.fetch_add(1, Ordering::Relaxed) + 1;
                gate.acquire().await.unwrap().forget();
                Ok(nth)
            })
        };
        let first = async {
            let outcome = read().await.unwrap();
            gate.add_permits(1);
            outcome
        };
        let late = async {
            // The first reading has begun, so it may not have what was written since.
            while begun.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let waiting = join_all((0..100).map(|_| read()));
            join(waiting, async { gate.add_permits(1) }).await.0
        };
        let (first, late) = join(first, late).await;
        assert_eq!(first, 1);
        assert!(late.into_iter().all(|outcome| outcome.unwrap() == 2));
    }
}
