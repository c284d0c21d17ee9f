//! Tests with a mock cluster, for errors that real brokers do not return on demand, and tests with a real Kafka.
#![allow(clippy::unwrap_used)]

mod broker_errors;
#[cfg(feature = "servers")]
mod dead_letters;
#[cfg(feature = "servers")]
mod lost_brokers;
#[cfg(feature = "servers")]
mod settings;
mod slow_broker;
#[cfg(feature = "servers")]
mod topic;
#[cfg(feature = "servers")]
mod transactions;
