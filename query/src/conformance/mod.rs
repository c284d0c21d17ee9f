//! The conformance suites for the ports of the read side. Use them like the suites in [`votes::conformance`].

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "a failed promise panics, and the name of each promise is its documentation"
)]

pub mod datasets;
pub mod imports;
pub mod objects;
pub mod query_store;
pub mod response_cache;
