//! The types of the JSON in the HTTP interfaces. The services write these types. The command line, the tests and other
//! clients read them.
//!
//! | JSON | file |
//! |---|---|
//! | votes, receipts, and the outcomes of a batch | `vote` |
//! | errors (RFC 9457) | `problem` |
//! | contests, their tallies and their leading albums | `tally` |
//! | numbers of votes by window of time | `rates` |
//! | responses to queries about single votes and rows of datasets | `query` |
//! | datasets, and imports of files | `datasets` |
//! | the health of a process | `health` |
//!
//! The types only have fields. The rules for their values are in the crates `votes` and `query`. Ids are text here,
//! even if the domain has a type for them. The feature `openapi` adds the schemas for the `OpenAPI` documents.

mod datasets;
mod health;
mod problem;
mod query;
mod rates;
mod tally;
mod vote;

pub use datasets::{BadRowInfo, ColumnInfo, DatasetInfo, DatasetList, IfExists, ImportInfo};
pub use health::{CheckReport, HealthReport, HealthStatus};
pub use problem::Problem;
pub use query::{Cleared, CountedVote, RowsResponse, Served, VotesResponse};
pub use rates::{RateWindow, SettledRates};
pub use tally::{AlbumVotes, Albums, BandVotes, ContestList, ContestName, Others, Tally};
pub use vote::{BatchItem, BatchProblem, Receipt, Vote};
