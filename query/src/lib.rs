//! The domain of the read side: queries about counted votes and datasets, and the import of files.
//!
//! # The path of a query
//!
//! 1. A route parses parameters into a [`Query`] on a [`Schema`]. Queries are validated only there.
//! 2. [`Query::normal_form`] is the same text for all spellings of a query. This text is the key of the response in the
//!    [`ResponseCache`], which stores the response with the version of the data that the response depends on.
//! 3. If no response is cached, the [`QueryStore`] runs the query. The adapter turns the query into a [`Plan`]:
//!    conditions on the fields of the store, with the values bound.
//! 4. [`evaluate()`] defines the correct response by examining all rows. The tests compare every adapter with it.
//!
//! Files become datasets or votes through [`import`]. An uploaded file is an object in [`Objects`]. Any worker can load
//! a chunk of the file.
//!
//! | module | contents |
//! |---|---|
//! | `grammar` | queries: columns, values, order, and their meaning |
//! | `dataset` | datasets |
//! | [`import`] | splitting a file into chunks, and reading the rows of a chunk |
//! | `ports` | the traits of the stores: query store, datasets, imports, cached responses, objects |
//! | `conformance` | the suites that every adapter of these ports must pass |
//!
//! This crate does no I/O, uses no driver and needs no async runtime. It uses the ids and the vote of the crate
//! `votes`.

mod dataset;
mod grammar;
pub mod import;
mod ports;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use dataset::{Dataset, DatasetId, DatasetRow};
pub use grammar::{
    Column, DEFAULT_PAGE_ROWS, Direction, Evaluated, Filter, Index, Key, Kind, MAX_CONDITIONS, MAX_EXACT_TOTAL,
    MAX_IN_VALUES, MAX_PAGE_END, MAX_PAGE_ROWS, MAX_VALUE_CHARS, PARAMETERS, Pattern, Plan, Query, Row, Schema,
    StoredField, Total, VOTE_COLUMNS, Value, Votes, decode_normal_form, evaluate, number_of,
};
pub use ports::{
    CacheLookup, CachedResponse, ChunkQueue, Datasets, Found, ImportProgress, Imports, ObjectWriter, Objects, Page,
    QueryStore, ResponseCache, Table,
};
