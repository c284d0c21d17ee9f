//! The error for an invalid configuration.

/// An invalid configuration. The process ends with exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key of the invalid value.
    pub key: String,
    /// What is wrong with the value, and what would be valid.
    pub problem: String,
}

impl ConfigError {
    /// Creates the error for a key and the problem with its value.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// Converts an error of figment. The result names the key, and the source of the value if it is known.
pub(super) fn from_figment(error: &figment::Error) -> ConfigError {
    let key = if error.path.is_empty() { "configuration".to_owned() } else { error.path.join(".") };
    let source = error.metadata.as_ref().map(|metadata| match &metadata.source {
        Some(figment::Source::File(path)) => format!(" (in {})", path.display()),
        _ if metadata.name.contains("environment") => format!(" (in OVATION_{})", key.to_uppercase()),
        _ => String::new(),
    });
    let problem = match error.kind.to_string() {
        problem if problem.contains("socket address") => "not an address; give one like 127.0.0.1:8000".to_owned(),
        problem => problem,
    };
    ConfigError::new(key, problem + &source.unwrap_or_default())
}
