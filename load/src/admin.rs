//! Reads the metrics of a process from its admin port.

use client::{Exposition, http};
use service::program::Failure;

/// The value of an address flag that means that the admin port of the process is not reachable.
pub(crate) const NO_ADMIN: &str = "none";

/// Returns the address in a flag, or `None` if the flag is [`NO_ADMIN`].
pub(crate) fn address(flag: &str) -> Option<&str> {
    (flag != NO_ADMIN).then_some(flag)
}

/// Requests the metrics of the process with this admin port. Also returns their full URL.
///
/// # Errors
/// If the process does not respond, or the status is not 2xx.
pub(crate) async fn metrics(admin: &str) -> Result<(String, Exposition), Failure> {
    let (url, text) = http::get_bytes(admin, "/metrics").await?;
    Ok((url, Exposition::parse(&String::from_utf8_lossy(&text))))
}
