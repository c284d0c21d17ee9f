//! The start, the errors and the shutdown of our gRPC servers.
//!
//! | what | file |
//! |---|---|
//! | a server with health and reflection | `server` |
//! | the gRPC health service | `readiness` |
//! | converting refusals to the status of a call | `status` |

mod readiness;
mod server;
mod status;

pub use server::GrpcServer;
pub use status::{SHUTTING_DOWN, has_reason, refusal_status, retry_later};
