//! The bands that are part of the program.

/// A JSON array of objects with `name`, `album`, `year` and `rank`, the most popular band first.
pub(crate) const BUILT_IN: &str = include_str!("../../data/bands.json");
