//! Types of configuration values that are validated when they are parsed.

use serde::{Deserialize, Serialize};
use tonic::codegen::http::Uri;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The URL of a gRPC server without TLS: `http://HOST:PORT`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrpcEndpoint(String);

impl GrpcEndpoint {
    /// Returns the URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GrpcEndpoint {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let uri = url.parse::<Uri>().ok();
        let is_bare = |uri: &Uri| uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
        match uri.as_ref().and_then(|uri| uri.scheme_str()) {
            Some("http") if uri.as_ref().is_some_and(is_bare) => Ok(Self(url)),
            Some("https") => {
                Err("TLS is not supported here; give the http URL of a server in the same network".to_owned())
            }
            _ => Err(format!("{url:?} is not the URL of a gRPC server; give one like http://127.0.0.1:4317")),
        }
    }
}

impl From<GrpcEndpoint> for String {
    fn from(endpoint: GrpcEndpoint) -> Self {
        endpoint.0
    }
}

/// A ratio from 0 to 1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(pub(super) f64);

impl Ratio {
    /// Returns the number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&ratio) { Ok(Self(ratio)) } else { Err(format!("{ratio} is not between 0 and 1")) }
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

/// The number of connections of a pool, from 1 to 256.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PoolSize(pub(super) u32);

impl PoolSize {
    /// Returns the number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for PoolSize {
    type Error = String;

    fn try_from(size: u32) -> Result<Self, String> {
        if (1..=256).contains(&size) { Ok(Self(size)) } else { Err(format!("{size} is not between 1 and 256")) }
    }
}

impl From<PoolSize> for u32 {
    fn from(size: PoolSize) -> Self {
        size.0
    }
}
