//! The readiness and the health of a process.
//!
//! The process is ready if no latch exists, no check of a required dependency fails, and shutdown has not begun. The
//! health consists of the results of all checks.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use api::{CheckReport, HealthReport, HealthStatus};
use futures::future::join_all;
use tokio::sync::watch;
use votes::HealthDetails;

/// The longest time that a check may take. A slower check counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The readiness and health of this process, shared by its services.
#[derive(Clone, Default)]
pub struct Health(Arc<State>);

#[derive(Default)]
struct State {
    latches: watch::Sender<Vec<&'static str>>,
    is_shutting_down: AtomicBool,
    checks: Mutex<Vec<Arc<Check>>>,
}

struct Check {
    name: &'static str,
    criticality: Criticality,
    probe: Probe,
}

type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<HealthDetails, String>> + Send>> + Send + Sync>;

/// What the failure of a dependency means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criticality {
    /// The process can't do its work. While the check fails, the process is unhealthy and not ready.
    Required,
    /// The process can do a part of its work. While the check fails, the process is degraded but ready.
    Optional,
}

/// A condition for readiness, for example that a service has started. The process is not ready while the latch exists;
/// dropping the latch means that the condition holds.
pub struct Latch {
    health: Health,
    name: &'static str,
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.health.0.latches.send_modify(|latches| {
            if let Some(index) = latches.iter().position(|name| *name == self.name) {
                latches.swap_remove(index);
            }
        });
    }
}

impl Health {
    /// Adds a latch with this name. The process is not ready until the caller drops the latch.
    pub fn add_latch(&self, name: &'static str) -> Latch {
        self.0.latches.send_modify(|latches| latches.push(name));
        Latch { health: self.clone(), name }
    }

    /// Waits until no latch exists.
    pub async fn wait_until_started(&self) {
        // `wait_for` fails only if the sender is dropped, and `self` holds the sender.
        let _ = self.0.latches.subscribe().wait_for(Vec::is_empty).await;
    }

    /// Registers the check of a dependency. Each [`report`](Self::report) calls the probe. If a check of this name
    /// exists, the call has no effect.
    pub fn add_check<F, R>(&self, name: &'static str, criticality: Criticality, probe: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<HealthDetails, String>> + Send + 'static,
    {
        let check = Check { name, criticality, probe: Box::new(move || Box::pin(probe())) };
        let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if checks.iter().all(|check| check.name != name) {
            checks.push(Arc::new(check));
        }
    }

    /// Marks the process as not ready from now on. It does not end anything: it is only the first step of a shutdown.
    pub fn begin_shutdown(&self) {
        self.0.is_shutting_down.store(true, Ordering::Relaxed);
    }

    /// Runs all checks concurrently and returns their results.
    pub async fn report(&self) -> HealthReport {
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let checks = join_all(checks.iter().map(|check| run_check(check))).await;
        let waiting_for = self.0.latches.borrow().clone();
        let has = |status| checks.iter().any(|check| check.status == status);
        let status = match () {
            () if has(HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
            () if has(HealthStatus::Degraded) => HealthStatus::Degraded,
            () => HealthStatus::Healthy,
        };
        let is_shutting_down = self.0.is_shutting_down.load(Ordering::Relaxed);
        let ready = !is_shutting_down && waiting_for.is_empty() && status != HealthStatus::Unhealthy;
        let waiting_for = waiting_for.into_iter().map(str::to_owned).collect();
        HealthReport { status, ready, waiting_for, checks }
    }
}

async fn run_check(check: &Check) -> CheckReport {
    let begun = Instant::now();
    let result = tokio::time::timeout(CHECK_TIMEOUT, (check.probe)()).await;
    let result = result.unwrap_or_else(|_| Err(format!("no response within {CHECK_TIMEOUT:?}")));
    let (details, error) = result.map_or_else(|error| (HealthDetails::new(), Some(error)), |details| (details, None));
    let status = match (&error, check.criticality) {
        (None, _) => HealthStatus::Healthy,
        (Some(_), Criticality::Optional) => HealthStatus::Degraded,
        (Some(_), Criticality::Required) => HealthStatus::Unhealthy,
    };
    let latency_ms = begun.elapsed().as_secs_f64() * 1e3;
    let details = details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    CheckReport { name: check.name.to_owned(), status, latency_ms, error, details }
}
