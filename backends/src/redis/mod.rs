//! The tallies on Redis or Valkey.
//!
//! | subject | file |
//! |---|---|
//! | the port | [`tallies`] |
//! | what a URL says | [`address`] |
//! | the names of the keys, and how rate windows are grouped | [`keys`] |
//! | what has to happen in one step, in Lua | [`scripts`] |
//! | the one connection, and its replacement | [`connection`] |
//! | what the server has to be | [`server`] |
//! | waiting for a change | [`changes`] |
//! | people's questions that were answered already | [`answers`] |
//!
//! Counts and positions share one hash tag, so that they live on one server, persist together and roll back together. The
//! keys are listed in `docs/stores.md`: people and dashboards read them.

mod address;
mod answers;
mod changes;
mod connection;
mod keys;
mod scripts;
mod server;
mod tallies;
#[cfg(test)]
mod tests;

pub(crate) use answers::RedisAnswers;
pub(crate) use tallies::RedisTallies;
