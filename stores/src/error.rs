//! The failure to open a store, for the operator who configured its URL.

use service::{config::ConfigError, program::Failure};
use votes::{ConnectError, OpenError};

/// Converts the error of opening `store` to the failure of the program. `key` is the configuration key of the store's
/// URL.
pub(crate) fn failure(error: ConnectError, key: &str, store: &str) -> Failure {
    match error {
        ConnectError::BadUrl(problem) => ConfigError::new(key, problem).into(),
        ConnectError::Refused(problem) | ConnectError::Unreachable(problem) => OpenError::new(store, problem).into(),
    }
}
