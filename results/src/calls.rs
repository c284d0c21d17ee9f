//! Calls to stores, with time-outs. The log has a line when a store stops responding, and a line when it responds
//! again.

use std::{
    collections::BTreeSet,
    error::Error,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::timeout};
use votes::StoreError;

/// The longest time that a store may take to respond to a call.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls stores, and records which stores do not respond.
#[derive(Default)]
pub(crate) struct StoreCalls {
    unavailable: Mutex<BTreeSet<&'static str>>,
}

impl StoreCalls {
    /// Waits for the result of a call, but at most for `time_limit`.
    pub(crate) async fn call<T>(
        &self,
        store: &'static str,
        time_limit: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timed_out = |_| Err(StoreError::new(store, format_args!("no response within {time_limit:?}")));
        let result = timeout(time_limit, call).await.unwrap_or_else(timed_out);
        let mut unavailable = self.unavailable.lock().unwrap_or_else(PoisonError::into_inner);
        match &result {
            Err(error) if unavailable.insert(store) => {
                tracing::warn!(store, error = %error.problem, "a store does not respond");
            }
            Ok(_) if unavailable.remove(store) => tracing::info!(store, "a store responds again"),
            _ => {}
        }
        result
    }

    /// Waits for a permit and for the result of a call, but at most for [`STORE_TIMEOUT`].
    ///
    /// The call runs in a task of its own. If the caller stops waiting, the task holds the permit until the call has
    /// ended, because the store may continue to work on the call.
    pub(crate) async fn call_with_permit<T: Send + 'static>(
        &self,
        store: &'static str,
        permits: &Arc<Semaphore>,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let call = async {
            let failed = |error: &dyn Error| StoreError::new(store, error);
            let permit = Arc::clone(permits).acquire_owned().await.map_err(|error| failed(&error))?;
            let task = tokio::spawn(async move {
                let _permit = permit;
                call.await
            });
            task.await.map_err(|error| failed(&error))?
        };
        self.call(store, STORE_TIMEOUT, call).await
    }
}
