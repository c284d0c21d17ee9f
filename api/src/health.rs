//! The health of a process: the response to `GET /health` on its admin port.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The health of a process or of one dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Every dependency works.
    Healthy,
    /// An optional dependency fails.
    Degraded,
    /// A required dependency fails.
    Unhealthy,
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// The response to `GET /health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthReport {
    /// The worst status of all checks.
    pub status: HealthStatus,
    /// Whether the process takes requests.
    pub ready: bool,
    /// The conditions that the process waits for before it is ready.
    pub waiting_for: Vec<String>,
    /// The result of each health check.
    pub checks: Vec<CheckReport>,
}

/// The result of one health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckReport {
    /// The name of the dependency.
    pub name: String,
    /// `healthy`, or what the failure of the dependency means for the process.
    pub status: HealthStatus,
    /// The duration of the check, in milliseconds.
    pub latency_ms: f64,
    /// The error, if the check failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the dependency reports about itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_each_check_with_its_error_or_its_details() {
        let json = r#"{"status":"degraded","ready":true,"waiting_for":["tallies"],"checks":[{"name":"vote log","status":"healthy","latency_ms":0.5,"details":{"acks":"all"}},{"name":"query store","status":"degraded","latency_ms":2000.0,"error":"no response within 2s"}]}"#;
        let log = CheckReport {
            name: "vote log".to_owned(),
            status: HealthStatus::Healthy,
            latency_ms: 0.5,
            error: None,
            details: [("acks".to_owned(), "all".to_owned())].into(),
        };
        let query_store = CheckReport {
            name: "query store".to_owned(),
            status: HealthStatus::Degraded,
            latency_ms: 2_000.0,
            error: Some("no response within 2s".to_owned()),
            details: BTreeMap::new(),
        };
        let (status, waiting_for) = (HealthStatus::Degraded, vec!["tallies".to_owned()]);
        let report = HealthReport { status, ready: true, waiting_for, checks: vec![log, query_store] };
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
        assert_eq!(serde_json::from_str::<HealthReport>(json).unwrap(), report);
        assert_eq!(report.status.to_string(), "degraded");
    }
}
