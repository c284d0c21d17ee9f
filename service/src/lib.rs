//! What every process of Ovation shares: configuration, telemetry, health, the admin endpoints, HTTP manners, and the one
//! place where shutdown is decided.
//!
//! | idea | file |
//! |---|---|
//! | one typed configuration: flags over environment over file | [`config`] |
//! | what both doors do alike: measuring, and casting many votes in a line | [`door`] |
//! | whose request it is where proxies stand before a door | [`client`] |
//! | who sends most of a door's traffic | `traffic` |
//! | ready when the last latch drops; healthy when every dependency answers | [`health`] |
//! | what is measured of every request | [`requests`] |
//! | who may read single votes | [`token`] |
//! | how full the machine is | `machine` |
//! | a vote's way, as spans for a collector | [`traces`] |
//! | `/livez`, `/readyz`, `/health`, `/metrics` | [`admin`] |
//! | how a Rocket server starts, answers errors and drains | [`http`] |
//! | the connections before it, and their bounds | `connections` |
//! | how a gRPC server says no | [`grpc`] |
//! | SIGTERM, the order of leaving and its deadline | [`program`] |

pub mod admin;
pub mod client;
pub mod config;
mod connections;
pub mod door;
pub mod grpc;
pub mod health;
pub mod http;
mod machine;
pub mod program;
pub mod requests;
pub mod telemetry;
pub mod token;
pub mod traces;
mod traffic;

pub use config::{Config, ConfigError};
pub use health::Health;
pub use program::Context;
pub use tokio_util::sync::CancellationToken;
