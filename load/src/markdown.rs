//! Parts of all reports: Markdown tables, and the number of cores of the machine.

use std::{fmt::Write, thread};

/// Returns a table with these columns. Each row must have one cell for each column.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for cells in rows {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// Returns the number of cores of this machine, or 0 if it is unknown.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(0, usize::from)
}
