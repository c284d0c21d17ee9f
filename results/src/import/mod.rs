//! The import of files. A file is stored, split into chunks, and loaded.
//!
//! | idea | file |
//! |---|---|
//! | the importer, and the stores that it needs | `importer.rs` |
//! | receiving a file, storing it and splitting it into chunks | `upload.rs` |
//! | loading a chunk as rows of a dataset or as votes | `worker.rs` |
//! | finishing imports, and publishing chunks again if no worker loads them | `reconciler.rs` |
//! | pauses that get longer while a store fails | `backoff.rs` |
//! | the routes of datasets, imports and their uploads | `routes.rs` |
//!
//! Every process that serves results receives files, and loads chunks of all files. Loading a chunk twice has the same
//! effect as loading it once: each row has its number in the file, and each vote without an id gets an id that is
//! derived from the file and this number.

mod backoff;
pub(crate) mod importer;
mod reconciler;
pub(crate) mod routes;
mod upload;
mod worker;
