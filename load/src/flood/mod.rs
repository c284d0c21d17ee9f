//! `ovation flood`: casts votes at a fixed rate, over any producer, and measures the acknowledgements.
//!
//! # The path of a vote
//!
//! 1. The `schedule` determines when each vote is due and which worker sends it.
//! 2. The `worker` generates the vote (`votes`) and casts it over `rest`, `rest_batch` or `grpc`. `grpc_stream` has its
//!    own kind of worker. A vote that failed may be sent again with the same id.
//! 3. The worker records the final outcome of the vote in its `statistics`. If the vote was acknowledged, its id is
//!    written to the file of `receipts`.
//! 4. `workers` merges the statistics of all workers into the `report`.
//!
//! The number of votes in flight is bounded, so the memory is bounded too. A vote that is sent late keeps its due time,
//! so the time during which it waited for a slow server counts as latency.
//!
//! | what | file |
//! |---|---|
//! | the flags, and the checked flags | `args`, `plan` |
//! | a flood from the command line, or for another measurement | `run` |
//! | the endless flood of `ovation up --demo` | `demo` |

mod args;
mod backoff;
mod demo;
mod grpc;
mod grpc_stream;
mod plan;
mod progress;
mod protocol;
mod rate;
mod receipts;
mod report;
mod rest;
mod rest_batch;
mod run;
mod schedule;
mod statistics;
#[cfg(test)]
mod tests;
mod votes;
mod worker;
mod workers;

pub use self::{args::FloodArgs, demo::demo, run::run};
pub(crate) use self::{
    protocol::{Protocol, check_url},
    rate::Rate,
    run::measure,
};
