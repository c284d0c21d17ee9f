//! The ports of the read side. Each port is a trait that the crates below `stores/` implement, with a conformance suite
//! that every adapter must pass.

mod datasets;
mod imports;
mod objects;
mod query_store;
mod response_cache;

pub use datasets::Datasets;
pub use imports::{ChunkQueue, ImportProgress, Imports};
pub use objects::{ObjectWriter, Objects};
pub use query_store::{Found, Page, QueryStore, Table};
pub use response_cache::{CacheLookup, CachedResponse, ResponseCache};
