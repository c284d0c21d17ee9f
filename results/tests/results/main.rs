//! The results, served on real sockets from stores in memory.
#![allow(clippy::unwrap_used)]

mod client;
mod grpc;
mod importing;
mod leaving;
mod memory;
mod outages;
mod page;
mod queries;
mod reading;
mod server;
mod stream;
