//! These tests serve the results on real sockets from stores in memory.
#![allow(clippy::unwrap_used)]

mod client;
mod grpc;
mod importing;
mod memory;
mod outages;
mod page;
mod queries;
mod reading;
mod server;
mod shutdown;
mod stream;
