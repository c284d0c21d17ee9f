//! The configuration. Flags override the environment variables `OVATION_*`, the variables override the TOML file, and
//! the file overrides the defaults.
//!
//! | what | file |
//! |---|---|
//! | the flags that programs share | `flags` |
//! | types of values that are validated when they are parsed | `values` |
//! | contests and their rules | `contests` |
//! | secrets and their files | `secrets` |
//! | the error for an invalid configuration | `error` |

mod contests;
mod error;
mod flags;
mod secrets;
mod values;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use votes::{ContestId, Contests, Retention, VoterSecret};

use self::error::from_figment;
pub use self::{
    contests::{Candidates, ContestSection},
    error::ConfigError,
    flags::{CommonFlags, ProxyFlags, ReadFlags, StoreFlags},
    values::{GrpcEndpoint, LogFormat, PoolSize, Ratio},
};
use crate::{client_ip::TrustedProxies, token::ReadToken};

/// The configuration file that is read if there is no `--config`. The file need not exist.
const DEFAULT_FILE: &str = "ovation.toml";

/// The configuration. All programs have the same keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of the embedded stores.
    pub data: PathBuf,
    /// The vote log: `embedded:` or `kafka://HOST:PORT[,HOST:PORT...]/TOPIC`.
    pub vote_log: String,
    /// The tallies: `embedded:` or `redis://HOST:PORT`.
    pub tallies: String,
    /// The ledger: `embedded:` or `mongodb://HOST:PORT/DATABASE`.
    pub ledger: String,
    /// Where imported files are stored: `file:///FOLDER`, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`. If absent, they
    /// are stored in the folder `objects` in `data`.
    pub objects: Option<String>,
    /// The address on which the REST producer listens.
    pub rest: SocketAddr,
    /// The address on which the gRPC producer listens.
    pub grpc: SocketAddr,
    /// The address on which the results service listens for HTTP.
    pub results: SocketAddr,
    /// The address on which the results service listens for gRPC.
    pub results_grpc: SocketAddr,
    /// The address on which the admin endpoints listen.
    pub admin: SocketAddr,
    /// The addresses and networks of the proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: TrustedProxies,
    /// The file with the secret for hashing voters. If absent, an embedded vote log creates and stores a secret.
    pub secret_file: Option<PathBuf>,
    /// The token that clients must send to read single votes and datasets.
    pub read_token: Option<ReadToken>,
    /// The file with the read token. Only one of `read_token` and `read_token_file` may be set.
    pub read_token_file: Option<PathBuf>,
    /// The number of connections to the query store, which is the maximum number of queries at the same time.
    pub read_pool: PoolSize,
    /// The maximum size of the cached responses, in bytes.
    pub cache_bytes: usize,
    /// How many counted votes the vote log retains, by time or by size. If absent, it retains all votes.
    pub vote_log_retention: Option<Retention>,
    /// How many votes the ledger retains, by time or by size. If absent, it retains all votes. The summaries of the
    /// ledger contain the counts of expired votes.
    pub ledger_retention: Option<Retention>,
    /// The gRPC producer to which the REST producer forwards votes. If absent, the REST producer publishes votes on the
    /// log itself.
    pub forward: Option<GrpcEndpoint>,
    /// The maximum number of votes in one producer that wait for the log, or for the gRPC producer. The producer
    /// refuses further votes.
    pub max_queued_votes: usize,
    /// The log filter: a level, or `tracing` directives like `info,consumer=debug`.
    pub log: String,
    /// The format of log lines.
    pub log_format: LogFormat,
    /// The OTLP collector that receives the traces of votes. If absent, votes are not traced.
    pub traces: Option<GrpcEndpoint>,
    /// The share of votes that are traced, among the votes without a valid `traceparent`. For other votes, the sampled
    /// flag of the `traceparent` decides.
    pub traces_ratio: Ratio,
    /// The contests. If this is empty, there is one contest, `bands`, in which voters can vote for any name.
    pub contests: BTreeMap<ContestId, ContestSection>,
    /// The contests and their rules, created from `contests` on first use. They are cached because candidates may be in
    /// files.
    #[serde(skip)]
    read_contests: OnceLock<Arc<Contests>>,
}

impl Config {
    /// Returns the default configuration with this admin port.
    fn defaults(admin_port: u16) -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            data: "ovation-data".into(),
            vote_log: "embedded:".into(),
            tallies: "embedded:".into(),
            ledger: "embedded:".into(),
            objects: None,
            rest: local(8000),
            grpc: local(50051),
            results: local(8080),
            results_grpc: local(50052),
            admin: local(admin_port),
            trusted_proxies: TrustedProxies::default(),
            secret_file: None,
            read_token: None,
            read_token_file: None,
            read_pool: PoolSize(2),
            cache_bytes: 64 << 20,
            vote_log_retention: None,
            ledger_retention: None,
            forward: None,
            max_queued_votes: 20_000,
            log: "info".into(),
            log_format: LogFormat::Text,
            traces: None,
            traces_ratio: Ratio(1.0),
            contests: BTreeMap::new(),
            read_contests: OnceLock::new(),
        }
    }

    /// Loads the configuration. `flags` must serialise to the keys that were set on the command line.
    ///
    /// # Errors
    /// If `file` does not exist, or a value is invalid. The error names the first invalid key.
    pub fn load(file: Option<PathBuf>, flags: impl Serialize, admin_port: u16) -> Result<Self, ConfigError> {
        let defaults = Self::defaults(admin_port);
        let keys = keys_of(&defaults)?;
        let mut figment = Figment::from(Serialized::defaults(&defaults));
        match file {
            Some(path) if !path.is_file() => {
                return Err(ConfigError::new("config", format!("there is no file {}", path.display())));
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None => figment = figment.merge(Toml::file(DEFAULT_FILE)),
        }
        // Variables with other names are ignored: Kubernetes sets variables like OVATION_SERVICE_HOST in every
        // container.
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        figment = figment.merge(Env::prefixed("OVATION_").only(&keys)).merge(Serialized::defaults(flags));
        let config: Self = figment.extract().map_err(|error| from_figment(&error))?;
        config.contests()?;
        Ok(config)
    }

    /// Reads the voters' secret from `secret_file`, without the white space at its end. Returns `None` if the key is
    /// not set.
    ///
    /// # Errors
    /// If the file can't be read or the secret is too short.
    pub fn secret(&self) -> Result<Option<VoterSecret>, ConfigError> {
        self.secret_file.as_deref().map(secrets::voter_secret).transpose()
    }

    /// Returns `read_token`, or the token in `read_token_file` without the white space at its end.
    ///
    /// # Errors
    /// - If both are set.
    /// - If the file can't be read or has no valid token.
    /// - If there is no token, and other machines can reach the results service: they could read single votes.
    pub fn read_token(&self) -> Result<Option<ReadToken>, ConfigError> {
        secrets::read_token(self.read_token.as_ref(), self.read_token_file.as_deref(), self.results)
    }

    /// Returns the contests and their rules.
    ///
    /// # Errors
    /// If a contest is invalid or its candidates can't be read. The error names the contest and the key.
    pub fn contests(&self) -> Result<Arc<Contests>, ConfigError> {
        if let Some(contests) = self.read_contests.get() {
            return Ok(Arc::clone(contests));
        }
        let contests = contests::read(&self.contests, self.ledger_retention).map(Arc::new)?;
        Ok(Arc::clone(self.read_contests.get_or_init(|| contests)))
    }
}

/// Returns the keys that an environment variable can set. The contests are tables, so a variable can't set them.
fn keys_of(config: &Config) -> Result<Vec<String>, ConfigError> {
    let value = figment::value::Value::serialize(config).map_err(|error| from_figment(&error))?;
    Ok(value.into_dict().unwrap_or_default().into_keys().filter(|key| key != "contests").collect())
}
