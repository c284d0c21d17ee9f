//! The flags that programs share. A struct of flags serialises to the configuration keys that were set on the command
//! line.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// The flags that every program has.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct CommonFlags {
    /// Configuration file (TOML) [default: ovation.toml, if it exists]
    #[arg(long, value_name = "FILE", env = "OVATION_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The stores that this program uses
    #[command(flatten)]
    #[serde(flatten)]
    pub stores: StoreFlags,
    /// Address of the admin endpoints
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// What to log: a level, or directives like `info,consumer=debug` [default: info]
    #[arg(long, value_name = "LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Format of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// Trace votes to the OTLP collector at this gRPC URL, like <http://127.0.0.1:4317> [default: no traces]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<String>,
    /// File with the secret for hashing voters
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// How much of the vote log to retain after it is counted: a time like 7d or a size like 2GB [default: all]
    #[arg(long, value_name = "LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote_log_retention: Option<String>,
    /// How much of the ledger to retain: a time like 7d or a size like 2GB [default: all]
    #[arg(long, value_name = "LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_retention: Option<String>,
}

/// The flags with the locations of the stores.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct StoreFlags {
    /// Folder of the embedded stores [default: ./ovation-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The vote log [default: embedded:]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote_log: Option<String>,
    /// The tallies [default: embedded:]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tallies: Option<String>,
    /// The ledger [default: embedded:]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// Where to store imported files: a folder, or a bucket of S3 or Google Cloud, like <s3://BUCKET/PREFIX> [default:
    /// objects in the folder of --data]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<String>,
}

/// The flags for queries.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct ReadFlags {
    /// File with the token that clients must send to read single votes and datasets; required if other machines can
    /// reach the results service
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_token_file: Option<PathBuf>,
    /// Maximum number of queries that the query store executes at the same time [default: 2]
    #[arg(long, value_name = "CONNECTIONS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_pool: Option<u32>,
    /// Maximum size of the cached responses, in bytes [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<usize>,
}

/// The flags for the proxies in front of a producer.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct ProxyFlags {
    /// Addresses and networks of the proxies whose X-Forwarded-For is trusted, separated by commas [default: none]
    #[arg(long, value_name = "NETWORKS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<String>,
}
