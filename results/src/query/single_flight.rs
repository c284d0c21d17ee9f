//! Single flight: if several callers need the same value at the same time, one of them computes it, and the others
//! wait.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

/// The values that are being computed, by their keys.
pub(crate) struct SingleFlight<K, V>(Arc<Mutex<Cells<K, V>>>);

type Cells<K, V> = HashMap<K, Arc<OnceCell<V>>>;

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> SingleFlight<K, V> {
    /// Waits for the value if another caller computes it. Otherwise computes the value.
    ///
    /// The caller that has computed the value also gets a guard. Until the guard is dropped, other callers with the
    /// same key get the same value.
    pub(crate) async fn get(&self, key: K, compute: impl Future<Output = V>) -> (V, Option<FlightGuard<K, V>>) {
        let cell = {
            let mut cells = self.cells();
            // A cell that only this map refers to has no waiting caller: its computation was cancelled.
            cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            Arc::clone(cells.entry(key.clone()).or_default())
        };
        let mut guard = None;
        let compute = async {
            let value = compute.await;
            guard = Some(FlightGuard { flights: self.clone(), key, cell: Arc::clone(&cell) });
            value
        };
        let value = cell.get_or_init(|| compute).await.clone();
        (value, guard)
    }
}

impl<K, V> SingleFlight<K, V> {
    fn cells(&self) -> MutexGuard<'_, Cells<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a computed value. While the guard exists, other callers get this value.
pub(crate) struct FlightGuard<K: Eq + Hash, V> {
    flights: SingleFlight<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Eq + Hash, V> Drop for FlightGuard<K, V> {
    fn drop(&mut self) {
        let mut cells = self.flights.cells();
        if cells.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.cell)) {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn a_value_is_computed_once_until_its_guard_is_dropped() {
        let (flights, computed) = (SingleFlight::default(), AtomicUsize::new(0));
        let get = || {
            flights.get("key", async {
                yield_now().await;
                computed.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        let mut results = join_all((0..10).map(|_| get())).await;
        assert!(results.iter().all(|(value, _)| *value == 1));
        let mut guards: Vec<_> = results.drain(..).filter_map(|(_, guard)| guard).collect();
        assert_eq!(guards.len(), 1);
        assert!(matches!(get().await, (1, None)), "the guard still holds the value");
        guards.clear();
        assert!(matches!(get().await, (2, Some(_))));
    }

    #[tokio::test]
    async fn a_cancelled_computation_is_done_by_the_next_caller() {
        let flights = SingleFlight::default();
        tokio::select! {
            biased;
            () = yield_now() => {}
            _ = flights.get("key", std::future::pending::<u8>()) => {}
        }
        let (value, guard) = flights.get("key", async { 7 }).await;
        assert_eq!((value, guard.is_some()), (7, true));
    }
}
