//! The limits of the service.

use std::time::Duration;

use service::Config;

/// The limits of the service.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of streams at a time, for both protocols together.
    pub streams: usize,
    /// The interval between two heartbeats of a stream of events.
    pub heartbeat: Duration,
    /// The time for which the stores must fail before the subscribers are informed. A connection that is lost and
    /// opened again within this time is not reported.
    pub stale_after: Duration,
    /// The maximum number of queries that the query store runs at a time.
    pub read_pool: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 1_000, heartbeat: Duration::from_secs(5), stale_after: Duration::from_secs(2), read_pool: 2 }
    }
}

impl Limits {
    /// Returns the limits of a configuration.
    pub fn of(config: &Config) -> Self {
        Self { read_pool: usize::try_from(config.read_pool.get()).unwrap_or(usize::MAX), ..Self::default() }
    }
}
