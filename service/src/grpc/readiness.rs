//! The gRPC health service (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
//!
//! The service reports `SERVING` while the process is ready. Otherwise, and after shutdown began, it reports
//! `NOT_SERVING`.

use std::{convert::Infallible, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::{HealthReporter, health_reporter},
};

use crate::health::Health;

/// The interval at which the readiness of the process is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Creates the health service of a server with one other service. Also returns a future that never ends; the caller
/// must poll it, because it updates the status. If `health` is `None`, the status is `SERVING` until shutdown.
pub(super) fn follow(
    service: &'static str,
    health: Option<Health>,
    shutdown: CancellationToken,
) -> (impl Future<Output = Infallible>, HealthServer<impl HealthService>) {
    let (reporter, health_service) = health_reporter();
    let reporter = Reporter { reporter, service };
    let updates = async move {
        tokio::select! {
            never = reporter.follow_health(health.as_ref()) => match never {},
            () = shutdown.cancelled() => {}
        }
        reporter.set_ready(false).await;
        std::future::pending().await
    };
    (updates, health_service)
}

struct Reporter {
    reporter: HealthReporter,
    service: &'static str,
}

impl Reporter {
    async fn follow_health(&self, health: Option<&Health>) -> Infallible {
        let Some(health) = health else {
            self.set_ready(true).await;
            return std::future::pending().await;
        };
        self.set_ready(false).await;
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        loop {
            ticks.tick().await;
            self.set_ready(health.report().await.ready).await;
        }
    }

    /// Sets the status of the service and of the whole server. The name of the whole server is empty.
    async fn set_ready(&self, is_ready: bool) {
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in ["", self.service] {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
