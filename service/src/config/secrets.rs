//! Reads the secrets of the configuration. A secret in a file is not visible in the command line or the environment of
//! a process.

use std::{fs, net::SocketAddr, path::Path};

use votes::VoterSecret;

use super::error::ConfigError;
use crate::token::ReadToken;

/// Reads the voters' secret from a file, without the white space at its end.
///
/// # Errors
/// If the file can't be read or the secret is too short.
pub(super) fn voter_secret(file: &Path) -> Result<VoterSecret, ConfigError> {
    let problem = |problem: String| ConfigError::new("secret_file", format!("{}: {problem}", file.display()));
    let bytes = fs::read(file).map_err(|error| problem(error.to_string()))?;
    VoterSecret::new(bytes.trim_ascii_end()).map_err(problem)
}

/// Returns `given`, or the token in the file without the white space at its end. `results` is the address on which the
/// results service listens.
///
/// # Errors
/// - If both are given.
/// - If the file can't be read or has no valid token.
/// - If there is no token, and other machines can reach `results`: they could read single votes.
pub(super) fn read_token(
    given: Option<&ReadToken>,
    file: Option<&Path>,
    results: SocketAddr,
) -> Result<Option<ReadToken>, ConfigError> {
    let problem = |problem: String| ConfigError::new("read_token_file", problem);
    let Some(path) = file else {
        if let Some(token) = given {
            return Ok(Some(token.clone()));
        }
        if results.ip().is_loopback() {
            return Ok(None);
        }
        return Err(problem(format!(
            "the results listen on {results}, so other machines could read single votes; name a file with a token of at least \
             {} characters, for example from `openssl rand -hex 32`, or listen on 127.0.0.1",
            ReadToken::MIN_BYTES
        )));
    };
    if given.is_some() {
        return Err(problem("read_token is set as well; set only one of them".to_owned()));
    }
    let at = |what: String| problem(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    ReadToken::new(text.trim_ascii_end()).map(Some).map_err(at)
}
