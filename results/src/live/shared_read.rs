//! A read of a store that concurrent callers share.

use std::future::Future;

use tokio::{sync::Mutex, time::Instant};
use votes::StoreError;

/// A read of a store that runs at most once at a time, for any number of callers.
///
/// A caller gets the result of a read that began after its call, so the data is never older than the call. Callers that
/// wait at the same time share the next read. So a thousand callers cause no more load than one caller that reads
/// without a pause.
pub(crate) struct SharedRead<T>(Mutex<Option<LastRead<T>>>);

struct LastRead<T> {
    begun: Instant,
    outcome: Result<T, StoreError>,
}

impl<T> Default for SharedRead<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> SharedRead<T> {
    /// Returns the result of a read that began after this call: the read of another caller, or `read`.
    pub(crate) async fn get(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let called = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(last_read) = last.as_ref().filter(|last_read| last_read.begun > called) {
            return last_read.outcome.clone();
        }
        let begun = Instant::now();
        let outcome = read.await;
        *last = Some(LastRead { begun, outcome: outcome.clone() });
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
    async fn callers_that_wait_together_share_one_read_that_began_after_their_calls() {
        let (shared, gate, begun) = (SharedRead::default(), Semaphore::new(0), AtomicUsize::new(0));
        let get = || {
            shared.get(async {
                let nth = begun.fetch_add(1, Ordering::Relaxed) + 1;
                gate.acquire().await.unwrap().forget();
                Ok(nth)
            })
        };
        let first = async {
            let outcome = get().await.unwrap();
            gate.add_permits(1);
            outcome
        };
        let late = async {
            // The first read has begun, so it may not include later writes.
            while begun.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let waiting = join_all((0..100).map(|_| get()));
            join(waiting, async { gate.add_permits(1) }).await.0
        };
        let (first, late) = join(first, late).await;
        assert_eq!(first, 1);
        assert!(late.into_iter().all(|outcome| outcome.unwrap() == 2));
    }
}
