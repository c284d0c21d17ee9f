//! Retention: expires counted votes from the ledger and the vote log.
//!
//! Votes expire from the [ledger] in steps: the task of a partition executes a step between two batches. Records expire
//! from the [log] in a task of its own, for all partitions of this consumer together. Both use the same [policy]. Failures
//! are counted, and the check `retention` shows them until the votes have expired.

mod ledger;
mod log;
mod policy;

pub use self::policy::RetentionPolicy;
pub(crate) use self::{
    ledger::{PartitionRetention, compact_summaries},
    log::expire_log,
    policy::describe_metrics,
};
