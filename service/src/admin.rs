//! The admin endpoints of a process, on a port of their own.

use std::{convert::Infallible, time::Duration};

use api::{HealthReport, HealthStatus};
use metrics::{Gauge, describe_gauge, gauge};
use rocket::{Build, Rocket, State, get, http::Status, routes, serde::json::Json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Health,
    http,
    serve::ServeError,
    telemetry::{self, Metrics},
};

/// Serves `/livez`, `/readyz`, `/health` and `/metrics` until shutdown. Also exports the health as metrics.
///
/// # Errors
/// If the endpoints can't be served.
pub async fn run(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let rocket = stage(health.clone(), metrics);
    tokio::select! {
        outcome = http::serve("admin", rocket, listener, shutdown) => outcome,
        never = export_health(health) => match never {},
    }
}

/// The interval at which the health is exported as metrics.
const EXPORT_INTERVAL: Duration = Duration::from_secs(5);

async fn export_health(health: Health) -> Infallible {
    describe_gauge!("ovation_health", "0 healthy, 1 degraded, 2 unhealthy");
    describe_gauge!("ovation_check_up", "1 while a check of /health succeeds, else 0");
    describe_gauge!("ovation_check_seconds", "How long a check of /health took");
    let mut replicas = Replicas::new();
    let mut ticks = tokio::time::interval(EXPORT_INTERVAL);
    loop {
        ticks.tick().await;
        let report = health.report().await;
        replicas.export(&report);
        gauge!("ovation_health").set(match report.status {
            HealthStatus::Healthy => 0,
            HealthStatus::Degraded => 1,
            HealthStatus::Unhealthy => 2,
        });
        for check in report.checks {
            let is_up = check.status == HealthStatus::Healthy;
            gauge!("ovation_check_up", "check" => check.name.clone()).set(u8::from(is_up));
            gauge!("ovation_check_seconds", "check" => check.name).set(check.latency_ms / 1e3);
        }
    }
}

/// The metrics of the vote log's replicas. They have the numbers that the log's check reports, because the check is the
/// only reader of them in a process.
struct Replicas([Replica; 2]);

/// A metric, the detail of a check that it exports, and the gauge while it has a value.
struct Replica {
    metric: &'static str,
    detail: &'static str,
    gauge: Option<Gauge>,
}

impl Replicas {
    fn new() -> Self {
        describe_gauge!("ovation_vote_log_replicas", "Replicas that each partition of the vote log should have");
        describe_gauge!(
            "ovation_vote_log_in_sync_replicas",
            "Replicas in sync of the partition of the vote log that has the fewest"
        );
        Self([
            Replica { metric: "ovation_vote_log_replicas", detail: "replication", gauge: None },
            Replica { metric: "ovation_vote_log_in_sync_replicas", detail: "in_sync_replicas", gauge: None },
        ])
    }

    /// Sets the metrics. If no check reports a number, because the log has no replicas or its check fails, the series of
    /// the metric ends.
    fn export(&mut self, report: &HealthReport) {
        for Replica { metric, detail, gauge } in &mut self.0 {
            let reported = report.checks.iter().find_map(|check| check.details.get(*detail)?.parse::<u32>().ok());
            match (reported, gauge.take()) {
                (Some(number), known) => gauge.insert(known.unwrap_or_else(|| gauge!(*metric))).set(number),
                (None, Some(known)) => telemetry::end(&known),
                (None, None) => {}
            }
        }
    }
}

fn stage(health: Health, metrics: Metrics) -> Rocket<Build> {
    http::rocket().manage(health).manage(metrics).mount("/", routes![livez, readyz, health_report, render_metrics])
}

/// Returns 200 while the process runs and its runtime responds.
#[get("/livez")]
fn livez() -> &'static str {
    "ok\n"
}

/// Returns 200 while clients should send requests to this process, else 503 with the reason.
#[get("/readyz")]
async fn readyz(health: &State<Health>) -> (Status, String) {
    let report = health.report().await;
    if report.ready {
        return (Status::Ok, "ok\n".to_owned());
    }
    let failed = report.checks.iter().filter(|check| check.status == HealthStatus::Unhealthy);
    let failed = failed.map(|check| format!("{}: {}\n", check.name, check.error.as_deref().unwrap_or("failed")));
    let waiting = report.waiting_for.iter().map(|name| format!("waiting for {name}\n"));
    (Status::ServiceUnavailable, format!("not ready\n{}", waiting.chain(failed).collect::<String>()))
}

/// Returns the state of each dependency and its latency. The status is 503 if a required dependency fails.
#[get("/health")]
async fn health_report(health: &State<Health>) -> (Status, Json<HealthReport>) {
    let report = health.report().await;
    let status = if report.status == HealthStatus::Unhealthy { Status::ServiceUnavailable } else { Status::Ok };
    (status, Json(report))
}

/// Returns all metrics in Prometheus text format.
#[get("/metrics")]
async fn render_metrics(metrics: &State<Metrics>) -> String {
    metrics.render().await
}

#[cfg(test)]
mod tests {
    use api::CheckReport;
    use metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn the_replicas_are_exported_while_the_check_of_the_log_reports_them() {
        let recorder = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&recorder, || {
            let mut replicas = Replicas::new();
            let mut export = |details: &[(&str, &str)]| {
                let details = details.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
                let (name, status) = ("vote log".to_owned(), HealthStatus::Healthy);
                let checks = vec![CheckReport { name, status, latency_ms: 1.0, error: None, details }];
                replicas.export(&HealthReport { status, ready: true, waiting_for: Vec::new(), checks });
                telemetry::samples(&recorder)
            };
            assert_eq!(export(&[("file", "log.db")]), [""; 0], "an embedded log has no replicas");
            let samples = ["ovation_vote_log_in_sync_replicas 2", "ovation_vote_log_replicas 3"];
            assert_eq!(export(&[("replication", "3"), ("in_sync_replicas", "2")]), samples);
            assert_eq!(export(&[]), [""; 0], "the check failed");
            assert_eq!(export(&[("replication", "3"), ("in_sync_replicas", "2")]), samples);
        });
    }
}
