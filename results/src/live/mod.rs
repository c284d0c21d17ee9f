//! The live tallies of contests.
//!
//! | idea | file |
//! |---|---|
//! | the tally of a contest, and its JSON | `contest_tally` |
//! | a read that concurrent callers share | `shared_read` |
//! | the time up to which all accepted votes are counted | `watermark` |
//! | reading the tallies and the ends of the vote log | `stores` |
//! | subscribers of a contest, and their events | `watch` |
//! | the tally of a contest, once and as a stream of events | `tally`, `stream` |
//! | leading albums, and votes by time | `albums`, `rates` |
//! | the tallies as metrics | `metrics` |
//! | `ovation.v1.ResultsService` | `grpc` |
//! | the live page | `page`, `assets/` |

pub(crate) mod albums;
mod contest_tally;
pub(crate) mod grpc;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod rates;
mod shared_read;
pub(crate) mod stores;
pub(crate) mod stream;
pub(crate) mod tally;
pub(crate) mod watch;
mod watermark;
