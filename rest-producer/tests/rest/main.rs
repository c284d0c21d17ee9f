//! Tests of the REST producer over real sockets, with a fake vote log that fails when a test tells it to.

#![allow(clippy::unwrap_used, reason = "in a test, an unexpected error is a failure")]

mod batch;
mod client;
mod forward;
mod heavy_hitters;
mod hostile;
mod leaving;
mod openapi;
mod single;
