//! The gRPC health service (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>): serving while the process is
//! ready, no longer once it is leaving.

use std::{convert::Infallible, time::Duration};

use ::service::{CancellationToken, Health};
use proto::v1::vote_service_server::SERVICE_NAME;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::{HealthReporter, health_reporter},
};

/// How often readiness is asked.
const EVERY: Duration = Duration::from_secs(1);

/// The health service, and the work that keeps it true; that never ends.
pub(crate) fn follow(
    health: Health,
    shutdown: CancellationToken,
) -> (impl Future<Output = Infallible>, HealthServer<impl HealthService>) {
    let (reporter, service) = health_reporter();
    let work = async move {
        tokio::select! {
            never = ask(&health, &reporter) => match never {},
            () = shutdown.cancelled() => {}
        }
        report(&reporter, false).await;
        std::future::pending().await
    };
    (work, service)
}

async fn ask(health: &Health, reporter: &HealthReporter) -> Infallible {
    report(reporter, false).await;
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        report(reporter, health.report().await.ready).await;
    }
}

/// The empty name stands for the whole server.
async fn report(reporter: &HealthReporter, is_ready: bool) {
    let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in ["", SERVICE_NAME] {
        reporter.set_service_status(name, status).await;
    }
}
