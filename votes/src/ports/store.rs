//! What all ports have in common, and the errors of opening a store.

use std::{collections::BTreeMap, fmt::Display};

use async_trait::async_trait;

/// What a store reports to operators about itself, for example `acks` = `all`. `/health` shows these details.
pub type HealthDetails = BTreeMap<&'static str, String>;

/// The part that all ports have in common.
#[async_trait]
pub trait Store: Send + Sync {
    /// Checks that the store works now. Returns the details that the store reports about itself.
    async fn check(&self) -> Result<HealthDetails, StoreError>;
}

/// A store did not confirm an operation. The operation may or may not have taken effect.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{store}: {problem}")]
pub struct StoreError {
    /// Which store: `vote log`, `ledger`, `tallies`, `query store`, `datasets`, `response cache`, `imports`, `objects`;
    /// or the file of an embedded store, for example `log.db`.
    pub store: &'static str,
    /// What happened, in the driver's words.
    pub problem: String,
}

impl StoreError {
    /// Wraps an error of a driver.
    pub fn new(store: &'static str, problem: impl Display) -> Self {
        Self { store, problem: problem.to_string() }
    }
}

/// A store can't be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{store}: {problem}")]
pub struct OpenError {
    store: String,
    problem: String,
}

impl OpenError {
    /// Creates an error that names the store, or its file, and the problem.
    pub fn new(store: impl Display, problem: impl Display) -> Self {
        Self { store: store.to_string(), problem: problem.to_string() }
    }
}

/// Why a connection to a server can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is wrong. The text describes a correct one.
    #[error("{0}")]
    BadUrl(String),
    /// The server is not configured as required. The text describes what is required. A retry does not help.
    #[error("{0}")]
    Refused(String),
    /// The server did not respond as expected. A retry may help.
    #[error("{0}")]
    Unreachable(String),
}

impl ConnectError {
    /// Returns [`Refused`](Self::Refused) if the text of a problem mentions a certificate. The new text names the
    /// option that sets the certificate authority.
    pub fn untrusted(problem: &str, option: &str) -> Option<Self> {
        problem.to_lowercase().contains("certificate").then(|| {
            Self::Refused(format!(
                "{problem}; the server's certificate must name this host and be signed by a trusted authority: give the \
                 authority's certificate (PEM) with {option}"
            ))
        })
    }
}
