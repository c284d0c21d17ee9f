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
