//! Pauses between attempts.

use std::time::Duration;

use rand::RngExt;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(320);

/// Pauses that double from 10 ms to 320 ms; each is drawn from its upper half, so that workers which lost the same
/// server do not all come back at once. Short, so that a server which restarted is found soon.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).map(|_| backoff.next()).collect();
        assert!((FIRST / 2..FIRST).contains(&pauses[0]));
        assert!(pauses[5..].iter().all(|pause| (LONGEST / 2..LONGEST).contains(pause)));
        backoff.reset();
        assert!(backoff.next() < FIRST);
    }
}
