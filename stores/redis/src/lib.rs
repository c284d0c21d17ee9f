//! The tallies and cached responses on Redis or Valkey.
//!
//! | subject | file |
//! |---|---|
//! | the port `Tallies` | [`tallies`] |
//! | the port `ResponseCache` | [`response_cache`] |
//! | parsing a URL | [`address`] |
//! | the names of the keys, and the groups of rate windows | [`keys`] |
//! | atomic changes, as Lua scripts | [`scripts`] |
//! | the shared connection, and its replacement after an error | [`connection`] |
//! | the requirements on the server, and its health details | [`server`] |
//! | waiting for a new version of the tallies | [`version_watch`] |
//!
//! All keys have the same hash tag. So counts and positions are on one server, which saves and loses them together.
//! `docs/stores.md` lists the keys for operators and dashboards.

mod address;
mod connection;
mod keys;
mod response_cache;
mod scripts;
mod server;
mod tallies;
#[cfg(all(test, feature = "servers"))]
mod tests;
mod version_watch;

pub use response_cache::RedisResponseCache;
pub use tallies::RedisTallies;
