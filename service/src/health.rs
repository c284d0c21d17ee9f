//! Readiness as a set of latches, and health as what each dependency answers.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde::Serialize;
use tokio::sync::watch;
use votes::Facts;

/// How long a dependency may take to answer before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The health of this process, shared by its services.
#[derive(Clone, Default)]
pub struct Health(Arc<State>);

#[derive(Default)]
struct State {
    latches: watch::Sender<Vec<&'static str>>,
    is_stopping: AtomicBool,
    checks: Mutex<Vec<Arc<Check>>>,
}

struct Check {
    name: &'static str,
    weight: Weight,
    probe: Probe,
}

type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Facts, String>> + Send>> + Send + Sync>;

/// What it means when a dependency fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The process can't do its work: unhealthy, and not ready.
    Vital,
    /// Part of the work waits: degraded, and still ready.
    Helpful,
}

/// Holds readiness back until it is dropped.
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

/// One word for the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every dependency answers.
    Healthy,
    /// A helpful one does not.
    Degraded,
    /// A vital one does not.
    Unhealthy,
}

/// What `/health` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The worst of the checks.
    pub status: Status,
    /// Whether work should be sent here.
    pub ready: bool,
    /// What readiness waits for.
    pub waiting_for: Vec<&'static str>,
    /// Each dependency.
    pub checks: Vec<CheckReport>,
}

/// What one dependency answered.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The dependency.
    pub name: &'static str,
    /// `healthy`, or what its failure means.
    pub status: Status,
    /// How long it took.
    pub latency_ms: f64,
    /// What it said, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it says of itself.
    #[serde(skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
}

impl Health {
    /// Holds readiness back until the latch is dropped.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.0.latches.send_modify(|latches| latches.push(name));
        Latch { health: self.clone(), name }
    }

    /// Waits until the last latch has dropped.
    pub async fn started(&self) {
        // It fails only without a sender, and we hold that.
        let _ = self.0.latches.subscribe().wait_for(Vec::is_empty).await;
    }

    /// Adds a dependency, if there is none of this name yet. The probe is called at each look at the health.
    pub fn check<F, R>(&self, name: &'static str, weight: Weight, probe: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Facts, String>> + Send + 'static,
    {
        let check = Check { name, weight, probe: Box::new(move || Box::pin(probe())) };
        let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
        if checks.iter().all(|check| check.name != name) {
            checks.push(Arc::new(check));
        }
    }

    /// From now on not ready: the first step of leaving.
    pub fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Asks every dependency, at the same time.
    pub async fn report(&self) -> Report {
        let checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let checks = join_all(checks.iter().map(|check| ask(check))).await;
        let waiting_for = self.0.latches.borrow().clone();
        let has = |status| checks.iter().any(|check| check.status == status);
        let status = match () {
            () if has(Status::Unhealthy) => Status::Unhealthy,
            () if has(Status::Degraded) => Status::Degraded,
            () => Status::Healthy,
        };
        let is_stopping = self.0.is_stopping.load(Ordering::Relaxed);
        let ready = !is_stopping && waiting_for.is_empty() && status != Status::Unhealthy;
        Report { status, ready, waiting_for, checks }
    }
}

async fn ask(check: &Check) -> CheckReport {
    let begun = Instant::now();
    let answer = tokio::time::timeout(CHECK_TIMEOUT, (check.probe)()).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}")));
    let (facts, error) = answer.map_or_else(|error| (Facts::new(), Some(error)), |facts| (facts, None));
    let status = match (&error, check.weight) {
        (None, _) => Status::Healthy,
        (Some(_), Weight::Helpful) => Status::Degraded,
        (Some(_), Weight::Vital) => Status::Unhealthy,
    };
    CheckReport { name: check.name, status, latency_ms: begun.elapsed().as_secs_f64() * 1e3, error, facts }
}
