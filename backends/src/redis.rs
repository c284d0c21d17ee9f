//! The tallies on Redis.
