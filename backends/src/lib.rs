//! The adapters of the ports, and the one place that names a driver.
//!
//! | feature | ports | where |
//! |---|---|---|
//! | `embedded` | all | SQLite files in one folder |
//! | `kafka` | vote queue and feed | Apache Kafka |
//! | `redis` | tallies, answers | Redis or Valkey |
//! | `mongo` | book, archive, datasets | MongoDB |
//! | `objects` | objects | a folder, S3 or Google Cloud Storage |

#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "kafka")]
mod kafka;
mod meters;
#[cfg(feature = "mongo")]
mod mongo;
#[cfg(feature = "objects")]
mod objects;
#[cfg_attr(
    not(all(feature = "kafka", feature = "redis", feature = "mongo")),
    allow(dead_code, clippy::unused_async, reason = "the ports of features that are off are not opened")
)]
mod open;
#[cfg(any(feature = "embedded", feature = "kafka"))]
mod record;
#[cfg(feature = "redis")]
mod redis;

pub use open::{Access, Importing, OpenError, Reading, Stores};
#[cfg(any(feature = "embedded", feature = "kafka"))]
pub use record::{encode, read_again};
