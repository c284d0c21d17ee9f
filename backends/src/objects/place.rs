//! What the configuration says about where objects are, and what opens that place.

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
use service::{Config, ConfigError};

use super::{COMPLETION, in_full};

/// The key of the configuration.
const KEY: &str = "objects";

/// The variable by which Amazon's tools are told whom to trust.
const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

const FORMS: &str = "give file:///FOLDER, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX";

/// How long a server may take to take a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Where objects are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    kind: Kind,
    /// What stands before the names of all objects. Of a folder: its path.
    prefix: Path,
}

#[derive(Clone, Debug)]
enum Kind {
    Folder {
        /// Nobody asked for it, so that nobody may need it.
        is_default: bool,
    },
    S3 {
        bucket: String,
    },
    Google {
        bucket: String,
    },
}

/// Whether a call that failed is tried again while there is time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    Again,
    Once,
}

impl Place {
    /// That of a configuration: without a URL, the folder `objects` in that of the embedded stores.
    pub(crate) fn of(config: &Config) -> Result<Self, ConfigError> {
        let Some(url) = &config.objects else {
            let folder = config.data.join("objects");
            let path = absolute(&folder).map_err(|error| error.to_string());
            let path = path.and_then(|path| Path::from_absolute_path(path).map_err(|error| error.to_string()));
            let problem = |error| ConfigError::new("data", format!("{}: {error}", folder.display()));
            return Ok(Self { kind: Kind::Folder { is_default: true }, prefix: path.map_err(problem)? });
        };
        Self::parse(url).map_err(|problem| ConfigError::new(KEY, problem))
    }

    fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("{url:?} names no object store; {FORMS}"));
        };
        // Never shown: people put passwords there.
        if rest.contains(['?', '#', '@']) {
            return Err(
                "its URL takes no user, password or options: those come from the environment; see docs/stores.md"
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
                return Err(format!("{url} is everything that is here; give a folder: file:///FOLDER"));
            }
            return Ok(Self { kind: Kind::Folder { is_default: false }, prefix });
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let kind: fn(String) -> Kind = match scheme {
            "s3" => |bucket| Kind::S3 { bucket },
            "gs" => |bucket| Kind::Google { bucket },
            _ => return Err(format!("{scheme}:// begins no object store; {FORMS}")),
        };
        let is_of_a_bucket =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "-._".contains(letter);
        if bucket.len() < 3 || !bucket.chars().all(is_of_a_bucket) {
            return Err(format!("{bucket:?} is no bucket's name; give {scheme}://BUCKET/PREFIX"));
        }
        let prefix = Path::parse(prefix).map_err(|error| format!("{url}: {error}"))?;
        Ok(Self { kind: kind(bucket.to_owned()), prefix })
    }

    /// What reads and writes it. Nothing is asked, made or written yet.
    pub(super) fn open(&self, patience: Patience) -> Result<Arc<dyn ObjectStore>, ConfigError> {
        let prefixed = |store: Arc<dyn ObjectStore>| Arc::new(PrefixStore::new(store, self.prefix.clone()));
        let store = match &self.kind {
            Kind::Folder { .. } => Ok(Arc::new(LocalFileSystem::new().with_fsync(true)) as Arc<dyn ObjectStore>),
            Kind::S3 { bucket } => s3(bucket, patience),
            Kind::Google { bucket } => google(bucket, patience),
        };
        match store {
            Ok(store) => Ok(prefixed(store)),
            Err(problem) => Err(ConfigError::new(KEY, format!("{self}: {problem}"))),
        }
    }

    /// Its folder, if it is one.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        matches!(self.kind, Kind::Folder { .. }).then(|| Folder::new("/").join(self.prefix.as_ref()))
    }

    /// Whether the configuration names it.
    pub(super) fn is_chosen(&self) -> bool {
        !matches!(self.kind, Kind::Folder { is_default: true })
    }
}

/// Its URL.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Folder { .. } => write!(f, "file:///{}", self.prefix),
            Kind::S3 { bucket } => write!(f, "s3://{bucket}/{}", self.prefix),
            Kind::Google { bucket } => write!(f, "gs://{bucket}/{}", self.prefix),
        }
    }
}

fn s3(bucket: &str, patience: Patience) -> Result<Arc<dyn ObjectStore>, String> {
    // As the builder's own `from_env`, which would throw the certificates away.
    let mut builder = AmazonS3Builder::new().with_client_options(trusting(CA_BUNDLE)?);
    for (name, value) in env::vars_os() {
        if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
            && name.starts_with("AWS_")
            && let Ok(key) = name.to_ascii_lowercase().parse()
        {
            builder = builder.with_config(key, value);
        }
    }
    for (key, value) in limits() {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    builder = builder.with_bucket_name(bucket).with_retry(retries(patience));
    let is_plain = |key| builder.get_config_value(&key).is_some_and(|url| url.starts_with("http://"));
    let may_be_plain = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    if [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint].into_iter().any(is_plain)
        && may_be_plain.as_deref() != Some("true")
    {
        return Err("the endpoint in the environment begins with http://, without TLS: set AWS_ALLOW_HTTP=true if that is meant".to_owned());
    }
    provide_tls();
    builder.build().map(|store| Arc::new(store) as _).map_err(|error| in_full(&error))
}

/// A client that also trusts the authorities in the file that a variable names.
fn trusting(variable: &str) -> Result<ClientOptions, String> {
    let Some(file) = env::var_os(variable).filter(|file| !file.is_empty()) else { return Ok(ClientOptions::new()) };
    let problem = |error: String| format!("{variable}, {}: {error}", file.display());
    let pem = fs::read(&file).map_err(|error| problem(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| problem(in_full(&error)))?;
    Ok(authorities.into_iter().fold(ClientOptions::new(), ClientOptions::with_root_certificate))
}

fn google(bucket: &str, patience: Patience) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retries(patience));
    for (key, value) in limits() {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    provide_tls();
    builder.build().map(|store| Arc::new(store) as _).map_err(|error| in_full(&error))
}

/// That of a request, above the times that calls have altogether.
fn limits() -> [(ClientConfigKey, String); 2] {
    [
        (ClientConfigKey::ConnectTimeout, format!("{} s", CONNECT.as_secs())),
        (ClientConfigKey::Timeout, format!("{} s", COMPLETION.as_secs())),
    ]
}

/// So bounded that a server that is down is told within ten seconds, by its own error.
fn retries(patience: Patience) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: if patience == Patience::Once { 0 } else { 5 },
        retry_timeout: Duration::from_secs(5),
    }
}

/// The client takes the process's provider, and has none of its own.
fn provide_tls() {
    // If there is one already, it is this one, too.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_which_store_it_is() {
        for url in ["s3://ovation/a/b", "gs://ov_at.ion-1/objects", "file:///var/lib/ovation", "s3://ovation/"] {
            assert_eq!(Place::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(Place::parse("s3://ovation").unwrap().to_string(), "s3://ovation/");
        assert_eq!(Place::parse("file:///a%20b/").unwrap().folder(), Some("/a b".into()));
    }

    #[test]
    fn a_wrong_url_is_told_what_would_be_right() {
        for (url, problem) in [
            ("", "names no object store"),
            ("objects", "give file:///FOLDER, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"),
            ("az://container", "az:// begins no object store"),
            ("s3://", "no bucket's name"),
            ("s3:///prefix", "no bucket's name"),
            ("s3://Bucket/x", "no bucket's name"),
            ("s3://host:9000/x", "no bucket's name"),
            ("s3://bucket/../x", "s3://bucket/../x"),
            ("s3://key:secret@bucket/x", "come from the environment"),
            ("s3://bucket/x?region=eu-west-1", "come from the environment"),
            ("file://objects", "file:///FOLDER"),
            ("file:///", "give a folder"),
        ] {
            let told = Place::parse(url).unwrap_err();
            assert!(told.contains(problem), "{url}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
