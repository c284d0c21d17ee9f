//! The ledger, datasets and the state of imports on `MongoDB`.
//!
//! | subject | file |
//! |---|---|
//! | connecting: time-outs, indexes, layout version, errors | [`connect`] |
//! | the time-out, the error text and the reply of a call | [`call`] |
//! | the port `Ledger` | [`ledger`] |
//! | the ports `LedgerRetention` and `LedgerRepair` | [`retention`] |
//! | the databases of votes and of datasets, for queries | [`databases`] |
//! | the port `QueryStore` | [`query_store`] |
//! | the port `Datasets` | [`datasets`] |
//! | the port `Imports` | [`imports`] |
//! | inserting the votes of several batches with one command | [`insert`] |
//! | recording duplicates, and marking their originals | [`duplicates`] |
//! | reading checkpoints, and inserting first ones | [`checkpoints`] |
//! | votes, checkpoints and duplicates as documents | [`document`] |
//! | the summaries of expired votes | [`summary`] |
//!
//! Counting writes with the write concern `majority` and with the journal, and reads from the primary with the read
//! concern `majority`. The URL can't change this. With less, counting could treat a vote as a duplicate of a vote that
//! a new primary does not have.

mod call;
mod checkpoints;
mod connect;
mod databases;
mod datasets;
mod document;
mod duplicates;
mod imports;
mod insert;
mod ledger;
mod query_store;
mod retention;
mod summary;
#[cfg(all(test, feature = "servers"))]
mod tests;

pub use databases::{Databases, Server};
pub use datasets::MongoDatasets;
pub use imports::MongoImports;
pub use ledger::MongoLedger;
pub use query_store::{DirectQueryStore, MongoQueryStore};
