//! The REST door over real sockets, before a log that fails on command.

#![allow(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

mod batch;
mod client;
mod forward;
mod hostile;
mod leaving;
mod openapi;
mod single;
mod traffic;
