//! The adapters of the ports, and the one place that names a driver.

mod embedded;
mod open;
mod record;

pub use open::{OpenError, Stores};
