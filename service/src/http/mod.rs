//! The start, the error responses and the shutdown of our HTTP servers.
//!
//! | what | file |
//! |---|---|
//! | the settings and the start of a Rocket | `server` |
//! | the connections and their limits; they pass requests to Rocket | `connections` |
//! | request bodies | `body` |
//! | errors as problem documents | `problem` |
//! | the errors that Rocket itself reports | `errors` |
//! | request ids and response times | `request_id` |

mod body;
mod connections;
mod errors;
mod problem;
mod request_id;
mod server;

pub use body::RequestBody;
pub use problem::Problem;
pub use server::{rocket, serve};
