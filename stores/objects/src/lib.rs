//! Imported files, in a folder, on S3 or on Google Cloud Storage.
//!
//! | subject | file |
//! |---|---|
//! | the port `Objects` | [`store`] |
//! | the time-outs of calls, and the text of their errors | [`call`] |
//! | parsing a URL, and opening its object store | [`location`] |
//! | writing one object in parts | [`writer`] |
//!
//! Reading, writing and deleting have time-outs. This includes folders, because a folder may be on a network.

mod call;
mod location;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use location::{Location, LocationError};
pub use store::ObjectStorage;
