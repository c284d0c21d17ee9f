//! The code that all processes of Ovation share: configuration, telemetry, health, the admin endpoints, HTTP and gRPC
//! servers, and the shutdown.
//!
//! | what | file |
//! |---|---|
//! | the configuration: flags override the environment, which overrides a file | [`config`] |
//! | running a program and its services; signals, the steps of a shutdown and its timeout | [`program`] |
//! | what both producers share: metrics of votes, and casting many votes without waiting | [`ingest`] |
//! | the address of a client behind trusted proxies | [`client_ip`] |
//! | the most frequent voters and networks of a producer | `heavy_hitters` |
//! | readiness and health | [`health`] |
//! | logs, metrics and the start of tracing | [`telemetry`] |
//! | the metrics of every request | [`requests`] |
//! | the token for reading single votes | [`token`] |
//! | the use of memory, disk and CPU | `resources` |
//! | traces of votes, as spans for a collector | [`traces`] |
//! | `/livez`, `/readyz`, `/health`, `/metrics` | [`admin`] |
//! | HTTP servers: their start, errors, shutdown, connections and limits | [`http`] |
//! | what the `OpenAPI` documents share | [`openapi`] |
//! | gRPC servers: their start, errors and shutdown | [`grpc`] |
//! | the error of a server | [`serve`] |

pub mod admin;
pub mod client_ip;
pub mod config;
pub mod grpc;
pub mod health;
mod heavy_hitters;
pub mod http;
pub mod ingest;
pub mod openapi;
pub mod program;
pub mod requests;
mod resources;
pub mod serve;
pub mod telemetry;
pub mod token;
pub mod traces;

pub use config::{Config, ConfigError};
pub use health::Health;
pub use program::Context;
pub use tokio_util::sync::CancellationToken;

/// The allocator of every program. The requests of the producers allocate much, and on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
