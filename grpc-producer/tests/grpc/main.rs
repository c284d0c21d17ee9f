//! The gRPC door over real sockets, before a log that fails on command.

#![allow(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

mod client;
mod health;
mod hostile;
mod leaving;
mod single;
mod stream;
mod traffic;
