//! The protocols over which votes are cast, and the URLs that each accepts.

use clap::ValueEnum;
use hyper::Uri;
use serde::Serialize;

/// How votes are cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// `POST /v1/votes`, one vote each
    Rest,
    /// `POST /v1/votes/batch`, `--batch-size` votes each
    RestBatch,
    /// `VoteService.CastVote`, one vote each
    Grpc,
    /// `VoteService.CastVotes`, a pipeline of votes
    GrpcStream,
}

impl Protocol {
    /// Returns whether the protocol is REST over HTTP/1.1.
    pub(crate) fn is_rest(self) -> bool {
        matches!(self, Self::Rest | Self::RestBatch)
    }

    /// Returns whether each vote is a request of its own.
    pub(crate) fn is_single(self) -> bool {
        matches!(self, Self::Rest | Self::Grpc)
    }

    /// Returns the name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rest => "REST",
            Self::RestBatch => "REST batch",
            Self::Grpc => "gRPC",
            Self::GrpcStream => "gRPC stream",
        }
    }
}

/// Checks that the URL in the flag of this name is valid for the protocol.
///
/// # Errors
/// A text that names the flag.
pub(crate) fn check_url(flag: &str, url: Uri, protocol: Protocol) -> Result<Uri, String> {
    let is_rest = protocol.is_rest();
    if url.scheme_str() != Some("http") || url.host().is_none_or(str::is_empty) {
        return Err(format!("{flag} {url} must be like http://host:port; other schemes are not supported"));
    }
    if url.query().is_some() || (!is_rest && url.path() != "/") {
        return Err(format!("{flag} {url} must be only http://host:port{}", if is_rest { "/path" } else { "" }));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_plain_http_and_only_rest_has_a_path() {
        let check = |url: &'static str, protocol| check_url("--url", Uri::from_static(url), protocol).is_ok();
        assert!(check("http://producer:8000/ovation", Protocol::Rest));
        assert!(check("http://[::1]:50051", Protocol::GrpcStream));
        assert!(!check("http://producer:50051/path", Protocol::Grpc));
        assert!(!check("https://producer", Protocol::Rest));
        assert!(!check("producer:8000", Protocol::Rest));
        assert!(!check("http://producer/?a=b", Protocol::Rest));
    }
}
