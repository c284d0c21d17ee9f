//! `ovation study`: a benchmark of queries. It measures what a query costs in each of the three ways to execute it:
//! with a new connection (direct), with a pool of connections, and with the cache.
//!
//! A reader sends a query, waits for the answer, pauses, and sends the next query. Readers send some queries often, and
//! most queries rarely. The speed of a machine changes over time, so the ways take turns in rounds of alternating order
//! (direct, pool, cache, cache, pool, direct). In its n-th turn, each way has the same random queries. Meanwhile, rows
//! are added and cached responses are cleared. Every answer is checked. The benchmark ends with an error at the first
//! wrong answer.
//!
//! | what | file |
//! |---|---|
//! | the flags | `args` |
//! | the ways, and the order of their turns | `turns` |
//! | creating the dataset, making all measurements, and writing the files of the report | `run` |
//! | the ballots of the dataset, the queries, and the check of the answers | `ballots` |
//! | one measurement of one way | `measure` |
//! | CPU, memory and connections of the processes | `processes` |
//! | the figures of all measurements | `summary` |
//! | the text of the report | `report` |
//! | the plots of the report | `plot` |

mod args;
mod ballots;
mod measure;
mod plot;
mod processes;
mod report;
mod run;
mod summary;
mod turns;

pub use self::{args::StudyArgs, run::run};
