//! A client for Ovation's interfaces. It casts votes and sends requests to the services.
//!
//! | what | file |
//! |---|---|
//! | a stream of votes, its unanswered votes, and why it closed | [`stream`] |
//! | the connection for such streams | [`endpoint`] |
//! | describing why a call or a connection failed | [`error`] |
//! | requests over HTTP: JSON, `/metrics`, uploads | [`http`] |
//! | the metrics of a process | [`exposition`] |

pub mod endpoint;
pub mod error;
pub mod exposition;
pub mod http;
pub mod stream;

pub use endpoint::endpoint;
pub use exposition::Exposition;
pub use stream::{Closed, VoteStream};
