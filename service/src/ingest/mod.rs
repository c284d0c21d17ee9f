//! The part of casting votes that both producers share, around [`votes::Ingest`].
//!
//! | what | file |
//! |---|---|
//! | metrics, heavy hitters and traces of votes | `metered` |
//! | casting many votes without waiting for each receipt | `pipeline` |

mod metered;
mod pipeline;

pub use metered::{MeteredIngest, Outcome};
pub use pipeline::{Backpressure, VotePipeline};
