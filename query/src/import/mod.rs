//! An imported file is split into chunks, which any number of workers load.
//!
//! A file has comma-separated values (RFC 4180) in UTF-8, with a header line. A file is read twice: during the upload,
//! to find the ends of the records, and later chunk by chunk. The whole file is never in memory.

mod ballot;
mod chunk;
mod rows;
mod split;
mod state;

pub use ballot::VoteMapper;
pub use chunk::{BadRow, Chunk, Contents, ImportId, Loaded};
pub use rows::{CsvRow, read_rows};
pub use split::{BadFile, Splitter};
pub use state::{Import, ImportState, Target};
