//! Pauses that get longer while a store fails.

use std::time::Duration;

use votes::StoreError;

/// The pause after the first failure. The pause doubles with each further failure.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// The longest pause.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Pauses that get longer while a store fails. The first failure and the recovery are logged.
#[derive(Default)]
pub(super) struct Backoff {
    pause: Option<Duration>,
}

impl Backoff {
    /// Pauses after a failure.
    pub(super) async fn wait(&mut self, error: &StoreError) {
        let pause = match self.pause {
            None => {
                tracing::warn!(store = error.store, error = %error.problem, "importing waits for a store");
                FIRST_DELAY
            }
            Some(pause) => (pause * 2).min(MAX_DELAY),
        };
        self.pause = Some(pause);
        tokio::time::sleep(pause).await;
    }

    /// Resets the pause. The caller calls this after a success.
    pub(super) fn reset(&mut self) {
        if self.pause.take().is_some() {
            tracing::info!("importing continues");
        }
    }
}
