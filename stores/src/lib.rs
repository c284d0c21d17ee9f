//! Opens the stores of a configuration. This is the only crate that depends on all adapters.
//!
//! | subject | file |
//! |---|---|
//! | opens the ports, and registers their health checks | [`Stores`] |
//! | the source of the ports | `source`: a `folder`, or `servers` |
//! | the health check of a port, and the wait for its server | `health_probe` |
//! | metrics of the ledger, the tallies and the query store | `meters` |
//! | the failure to open a store | `error` |
//!
//! | adapter | ports | store |
//! |---|---|---|
//! | `stores-sqlite` | all but objects | SQLite files in one folder |
//! | `stores-kafka` | log writer, log reader, chunks | Apache Kafka |
//! | `stores-redis` | tallies, response cache | Redis or Valkey |
//! | `stores-mongo` | ledger, query store, datasets, imports | MongoDB |
//! | `stores-objects` | objects | a folder, S3 or Google Cloud Storage |

mod error;
mod folder;
mod health_probe;
mod meters;
mod open;
mod servers;
mod source;

pub use open::{Access, ImportPorts, QueryPorts, Stores};
