//! Parses the URL of an object store, and opens the store.

use std::{
    env, fs,
    path::{Path as Folder, PathBuf, absolute},
    sync::Arc,
    time::Duration,
};

use object_store::{
    BackoffConfig, Certificate, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};

use crate::call::{COMPLETION_TIMEOUT, error_chain};

/// The configuration key of the URL.
const KEY: &str = "objects";

/// The environment variable that names a file of trusted authorities, as in Amazon's tools.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// The forms of a URL, for error messages.
const FORMS: &str = "give file:///FOLDER, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX";

/// The longest time that connecting to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where objects are: a folder or a bucket, and the prefix of the names.
#[derive(Clone, Debug)]
pub struct Location {
    kind: Kind,
    /// The prefix of all object names. For a folder, its path.
    prefix: Path,
}

/// An error in the configuration of the object store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct LocationError {
    /// The configuration key.
    pub key: &'static str,
    /// What is wrong, and in most cases what is valid.
    pub problem: String,
}

#[derive(Clone, Debug)]
enum Kind {
    Folder {
        /// Whether the configuration names no object store. Then the process may not need one.
        is_default: bool,
    },
    S3 {
        bucket: String,
    },
    Google {
        bucket: String,
    },
}

/// Whether the client tries a failed request again: see [`retry_config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Yes,
    No,
}

impl Location {
    /// Parses a URL. Without a URL, the location is the folder `objects` in the data folder.
    ///
    /// # Errors
    /// If the URL is wrong, or if the path of the folder can't be determined.
    pub fn of(url: Option<&str>, data: &Folder) -> Result<Self, LocationError> {
        let Some(url) = url else {
            let folder = data.join("objects");
            let path = absolute(&folder).map_err(|error| error.to_string());
            let path = path.and_then(|path| Path::from_absolute_path(path).map_err(|error| error.to_string()));
            let problem = |error| LocationError { key: "data", problem: format!("{}: {error}", folder.display()) };
            return Ok(Self { kind: Kind::Folder { is_default: true }, prefix: path.map_err(problem)? });
        };
        Self::parse(url).map_err(|problem| LocationError { key: KEY, problem })
    }

    fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("{url:?} names no object store; {FORMS}"));
        };
        // The message must not show the URL, because the URL may contain a password.
        if rest.contains(['?', '#', '@']) {
            return Err(
                "the URL must not have a user, a password or options: they come from the environment; see docs/stores.md"
                    .to_owned(),
            );
        }
        if scheme == "file" {
            if !rest.starts_with('/') {
                return Err(format!(
                    "file://{rest} names no folder; give its whole path, after three slashes: file:///FOLDER"
                ));
            }
            let prefix = Path::from_url_path(rest).map_err(|error| format!("{url}: {error}"))?;
            if prefix.is_root() {
                return Err(format!("{url} is the root of the file system; give a folder: file:///FOLDER"));
            }
            return Ok(Self { kind: Kind::Folder { is_default: false }, prefix });
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let kind: fn(String) -> Kind = match scheme {
            "s3" => |bucket| Kind::S3 { bucket },
            "gs" => |bucket| Kind::Google { bucket },
            _ => return Err(format!("{scheme}:// is not an object store; {FORMS}")),
        };
        let is_bucket_letter =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-._".contains(letter);
        if bucket.len() < 3 || !bucket.chars().all(is_bucket_letter) {
            return Err(format!("{bucket:?} is not the name of a bucket; give {scheme}://BUCKET/PREFIX"));
        }
        let prefix = Path::parse(prefix).map_err(|error| format!("{url}: {error}"))?;
        Ok(Self { kind: kind(bucket.to_owned()), prefix })
    }

    /// Creates the client. Sends no request and writes nothing yet.
    pub(super) fn open(&self, retry: Retry) -> Result<Arc<dyn ObjectStore>, LocationError> {
        let prefixed = |store: Arc<dyn ObjectStore>| Arc::new(PrefixStore::new(store, self.prefix.clone()));
        let store = match &self.kind {
            Kind::Folder { .. } => Ok(Arc::new(LocalFileSystem::new().with_fsync(true)) as Arc<dyn ObjectStore>),
            Kind::S3 { bucket } => s3(bucket, retry),
            Kind::Google { bucket } => google(bucket, retry),
        };
        match store {
            Ok(store) => Ok(prefixed(store)),
            Err(problem) => Err(LocationError { key: KEY, problem: format!("{self}: {problem}") }),
        }
    }

    /// Returns the path of a folder, or `None` for a bucket.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        matches!(self.kind, Kind::Folder { .. }).then(|| Folder::new("/").join(self.prefix.as_ref()))
    }

    /// Returns whether the configuration names the object store.
    pub(super) fn is_configured(&self) -> bool {
        !matches!(self.kind, Kind::Folder { is_default: true })
    }
}

impl std::fmt::Display for Location {
    /// Writes the URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Folder { .. } => write!(f, "file:///{}", self.prefix),
            Kind::S3 { bucket } => write!(f, "s3://{bucket}/{}", self.prefix),
            Kind::Google { bucket } => write!(f, "gs://{bucket}/{}", self.prefix),
        }
    }
}

fn s3(bucket: &str, retry: Retry) -> Result<Arc<dyn ObjectStore>, String> {
    // Read the environment as `AmazonS3Builder::from_env` does. That method would drop the certificates.
    let mut builder = AmazonS3Builder::new().with_client_options(client_options(CA_BUNDLE)?);
    for (name, value) in env::vars_os() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
            && name.starts_with("AWS_")
            && let Ok(key) = name.to_ascii_lowercase().parse()
        {
            builder = builder.with_config(key, value);
        }
    }
    for (key, value) in timeouts() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    builder = builder.with_bucket_name(bucket).with_retry(retry_config(retry));
    let is_http = |key| builder.get_config_value(&key).is_some_and(|url| url.starts_with("http://"));
    let allow_http = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    if [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint].into_iter().any(is_http)
        && allow_http.as_deref() != Some("true")
    {
        return Err(
            "the endpoint in the environment begins with http://, without TLS: set AWS_ALLOW_HTTP=true to allow that"
                .to_owned(),
        );
    }
    install_tls_provider();
    builder.build().map(|store| Arc::new(store) as _).map_err(|error| error_chain(&error))
}

/// Returns the options of a client. The client also trusts the authorities in the file that the environment variable
/// `variable` names.
fn client_options(variable: &str) -> Result<ClientOptions, String> {
    let Some(file) = env::var_os(variable).filter(|file| !file.is_empty()) else { return Ok(ClientOptions::new()) };
    let problem = |error: String| format!("{variable}, {}: {error}", file.display());
    let pem = fs::read(&file).map_err(|error| problem(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| problem(error_chain(&error)))?;
    Ok(authorities.into_iter().fold(ClientOptions::new(), ClientOptions::with_root_certificate))
}

fn google(bucket: &str, retry: Retry) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry_config(retry));
    for (key, value) in timeouts() {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    install_tls_provider();
    builder.build().map(|store| Arc::new(store) as _).map_err(|error| error_chain(&error))
}

/// Returns the time-outs of one request. The time-out of the whole request is the longest time-out of this crate,
/// because [`with_timeout`](crate::call::with_timeout) ends each call in time.
fn timeouts() -> [(ClientConfigKey, String); 2] {
    [
        (ClientConfigKey::ConnectTimeout, format!("{} s", CONNECT_TIMEOUT.as_secs())),
        (ClientConfigKey::Timeout, format!("{} s", COMPLETION_TIMEOUT.as_secs())),
    ]
}

/// Returns the limits of retries: five retries within five seconds, or none. Retries end before
/// [`CALL_TIMEOUT`](crate::call::CALL_TIMEOUT), so that the error for a server that is down is the connection's error.
fn retry_config(retry: Retry) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: if retry == Retry::No { 0 } else { 5 },
        retry_timeout: Duration::from_secs(5),
    }
}

/// Installs the TLS provider of the process, because the client does not include one.
fn install_tls_provider() {
    // This fails if the process already has a provider, which is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_store_and_a_prefix() {
        for url in ["s3://ovation/a/b", "gs://ov_at.ion-1/objects", "file:///var/lib/ovation", "s3://ovation/"] {
            assert_eq!(Location::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Location::parse("s3://ovation").unwrap().to_string(), "s3://ovation/");
        assert_eq!(Location::parse("file:///a%20b/").unwrap().folder(), Some("/a b".into()));
    }

    #[test]
    fn the_error_for_a_wrong_url_contains_the_problem_and_no_password() {
        for (url, problem) in [
            ("", "names no object store"),
            ("objects", "give file:///FOLDER, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"),
            ("az://container", "az:// is not an object store"),
            ("s3://", "is not the name of a bucket"),
            ("s3:///prefix", "is not the name of a bucket"),
            ("s3://Bucket/x", "is not the name of a bucket"),
            ("s3://host:9000/x", "is not the name of a bucket"),
            ("s3://bucket/../x", "s3://bucket/../x"),
            ("s3://key:secret@bucket/x", "come from the environment"),
            ("s3://bucket/x?region=eu-west-1", "come from the environment"),
            ("file://objects", "file:///FOLDER"),
            ("file:///", "give a folder"),
        ] {
            let error = Location::parse(url).unwrap_err();
            assert!(error.contains(problem), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
