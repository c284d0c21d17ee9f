//! Why a store is not open.

use std::fmt::Display;

use service::{ConfigError, program::Failure};

/// A store that can't be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct OpenError {
    what: String,
    problem: String,
}

impl OpenError {
    pub(crate) fn new(what: impl Display, problem: impl Display) -> Self {
        Self { what: what.to_string(), problem: problem.to_string() }
    }
}

/// Why a server is not open.
#[derive(Debug)]
pub(crate) enum NotOpen {
    /// The URL is wrong: what it should be.
    BadUrl(String),
    /// The server is not as it has to be, and what would be right. Trying again is no use.
    Refused(String),
    /// It did not answer as it should, but may soon.
    Unreachable(String),
}

impl NotOpen {
    /// If this is about a server's certificate: that it is not trusted, and which option names the authority that signed it.
    pub(crate) fn untrusted(problem: &str, option: &str) -> Option<Self> {
        problem.to_lowercase().contains("certificate").then(|| {
            Self::Refused(format!(
                "{problem}; its certificate has to name this host and be signed by an authority that is known here: give the \
                 authority's certificate (PEM) by {option}"
            ))
        })
    }

    /// For the person who gave the URL; `key` is its key in the configuration.
    pub(super) fn told(self, key: &str, store: &str) -> Failure {
        match self {
            Self::BadUrl(problem) => ConfigError::new(key, problem).into(),
            Self::Refused(problem) | Self::Unreachable(problem) => OpenError::new(store, problem).into(),
        }
    }
}

/// That a URL asks for what is not in this program.
pub(super) fn without(key: &str, feature: &str) -> ConfigError {
    ConfigError::new(key, format!("this program was built without the feature `{feature}`"))
}
