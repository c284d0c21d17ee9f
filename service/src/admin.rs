//! The admin endpoints of a process, on a port of their own.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use metrics::{describe_gauge, gauge};
use rocket::{Build, Rocket, State, get, http::Status, routes, serde::json::Json};
use tokio_util::sync::CancellationToken;

use crate::{
    Health,
    health::{self, Report},
    http::{self, ServeError},
    telemetry::Metrics,
};

/// Serves `/livez`, `/readyz`, `/health` and `/metrics` until shutdown.
///
/// # Errors
/// If the address can't be bound.
pub async fn run(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let rocket = stage(health.clone(), metrics);
    tokio::select! {
        outcome = http::serve("admin", rocket, address, shutdown, |_| ()) => outcome,
        never = measure(health) => match never {},
    }
}

/// How often what `/health` says is told as metrics.
const EVERY: Duration = Duration::from_secs(5);

async fn measure(health: Health) -> Infallible {
    describe_gauge!("ovation_health", "0 healthy, 1 degraded, 2 unhealthy");
    describe_gauge!("ovation_check_up", "1 while what /health checks is well, else 0");
    describe_gauge!("ovation_check_seconds", "How long it took to answer");
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let report = health.report().await;
        gauge!("ovation_health").set(match report.status {
            health::Status::Healthy => 0,
            health::Status::Degraded => 1,
            health::Status::Unhealthy => 2,
        });
        for check in report.checks {
            let is_up = check.status == health::Status::Healthy;
            gauge!("ovation_check_up", "check" => check.name).set(u8::from(is_up));
            gauge!("ovation_check_seconds", "check" => check.name).set(check.latency_ms / 1e3);
        }
    }
}

fn stage(health: Health, metrics: Metrics) -> Rocket<Build> {
    http::rocket().manage(health).manage(metrics).mount("/", routes![livez, readyz, health_report, render_metrics])
}

/// The process runs and its runtime answers.
#[get("/livez")]
fn livez() -> &'static str {
    "ok\n"
}

/// 200 while work should be sent here, else 503 with the reason.
#[get("/readyz")]
async fn readyz(health: &State<Health>) -> (Status, String) {
    let report = health.report().await;
    if report.ready {
        return (Status::Ok, "ok\n".to_owned());
    }
    let failed = report.checks.iter().filter(|check| check.status == health::Status::Unhealthy);
    let failed = failed.map(|check| format!("{}: {}\n", check.name, check.error.as_deref().unwrap_or("failed")));
    let waiting = report.waiting_for.iter().map(|name| format!("waiting for {name}\n"));
    (Status::ServiceUnavailable, format!("not ready\n{}", waiting.chain(failed).collect::<String>()))
}

/// Each dependency with its latency; 503 if a vital one fails.
#[get("/health")]
async fn health_report(health: &State<Health>) -> (Status, Json<Report>) {
    let report = health.report().await;
    let status = if report.status == health::Status::Unhealthy { Status::ServiceUnavailable } else { Status::Ok };
    (status, Json(report))
}

/// Prometheus text format.
#[get("/metrics")]
async fn render_metrics(metrics: &State<Metrics>) -> String {
    metrics.render().await
}
