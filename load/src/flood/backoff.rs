//! Computes the pauses between attempts.

use std::time::Duration;

use rand::RngExt;

/// The upper limit of the first pause.
const FIRST_DELAY: Duration = Duration::from_millis(10);
/// The upper limit of every pause. It is short, so that the workers soon reconnect to a server that has restarted.
const MAX_DELAY: Duration = Duration::from_millis(320);

/// Computes pauses. Their upper limit doubles from [`FIRST_DELAY`] to [`MAX_DELAY`]. Each pause is a random time
/// between half of its upper limit and the limit, so that workers that lost the same server do not all reconnect at the
/// same time.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_DELAY)
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(MAX_DELAY);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.0 = FIRST_DELAY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.next()).collect();
        assert!((FIRST_DELAY / 2..FIRST_DELAY).contains(&pauses[0]));
        assert!(pauses[5..].iter().all(|pause| (MAX_DELAY / 2..MAX_DELAY).contains(pause)));
        backoff.reset();
        assert!(backoff.next() < FIRST_DELAY);
    }
}
