//! `ovation compare`: measures which producer is faster, by how much, and how consistent the difference is.
//!
//! The speed of a machine changes over time. So the producers are measured in rounds, each in alternating order (A B C
//! D D C B A), and two producers are compared by their ratios within each round. All producers have the same load:
//! votes for the same bands, each acknowledged when the vote log has it.
//!
//! | what | file |
//! |---|---|
//! | the flags | `args` |
//! | making all measurements, and writing the files of the report | `run` |
//! | one measurement of one producer | `measure` |
//! | the figures of all rounds, and ratios of pairs of producers | `summary` |
//! | the text of the report | `report` |
//! | the plots of the report | `plot` |

mod args;
mod measure;
mod plot;
mod report;
mod run;
mod summary;

pub use self::{args::CompareArgs, run::run};
