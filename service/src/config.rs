//! The configuration: flags, then `OVATION_*` environment variables, then a TOML file, then defaults.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tonic::codegen::http::Uri;
use votes::{Contest, ContestId, Contests, Retention, UnixMillis, VoterSecret, VotesPerVoter};

use crate::{client::TrustedProxies, token::ReadToken};

/// The file that is read if `--config` names none and it exists.
const DEFAULT_FILE: &str = "ovation.toml";

/// Everything that can be configured; the same struct for every program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of the embedded stores.
    pub data: PathBuf,
    /// The vote log: `embedded:` or `kafka://HOST:PORT[,HOST:PORT...]/TOPIC`.
    pub queue: String,
    /// The tallies: `embedded:` or `redis://HOST:PORT`.
    pub tally: String,
    /// The vote book: `embedded:` or `mongodb://HOST:PORT/DATABASE`.
    pub book: String,
    /// Where imported files are: `file:///FOLDER`, `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`; the folder `objects` in `data` if absent.
    pub objects: Option<String>,
    /// Where the REST producer listens.
    pub rest: SocketAddr,
    /// Where the gRPC producer listens.
    pub grpc: SocketAddr,
    /// Where the results listen for HTTP.
    pub results: SocketAddr,
    /// Where the results listen for gRPC.
    pub results_grpc: SocketAddr,
    /// Where the admin endpoints listen.
    pub admin: SocketAddr,
    /// Proxies whose word on a client's address is taken: addresses and networks.
    pub trusted_proxies: TrustedProxies,
    /// A file with the secret under which voters are hashed. The embedded log makes and keeps one of its own.
    pub secret_file: Option<PathBuf>,
    /// The token by which readers of single votes and datasets are known.
    pub read_token: Option<ReadToken>,
    /// A file with that token.
    pub read_token_file: Option<PathBuf>,
    /// How many of people's questions may be in the archive at a time, each on a connection of its own.
    pub read_pool: PoolSize,
    /// The most bytes of answers that are kept.
    pub cache_bytes: usize,
    /// How much of the vote log is kept once it is counted; all if absent.
    pub log_retention: Option<Retention>,
    /// How much of the vote book is kept; all if absent. Older votes stay in its summaries.
    pub book_retention: Option<Retention>,
    /// The gRPC producer to which the REST producer passes votes on, instead of putting them on the log itself.
    pub forward: Option<GrpcEndpoint>,
    /// How many votes may wait for the log, or for the gRPC producer, before doors refuse.
    pub queue_votes: usize,
    /// What is logged: a level, or `tracing` directives like `info,consumer=debug`.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where traces of votes go, an OTLP collector; they are not traced if absent.
    pub traces: Option<GrpcEndpoint>,
    /// The share of votes that are traced, of those whose client did not decide.
    pub traces_ratio: Ratio,
    /// The contests; `bands`, open to any name, if there are none.
    pub contests: BTreeMap<ContestId, ContestSection>,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a gRPC server is called, without TLS: `http://HOST:PORT`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrpcEndpoint(String);

impl GrpcEndpoint {
    /// Its URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GrpcEndpoint {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let uri = url.parse::<Uri>().ok();
        let is_bare = |uri: &Uri| uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
        match uri.as_ref().and_then(|uri| uri.scheme_str()) {
            Some("http") if uri.as_ref().is_some_and(is_bare) => Ok(Self(url)),
            Some("https") => Err("TLS is not spoken here; give a server in the same network, by http".to_owned()),
            _ => Err(format!("{url:?} is no gRPC server's URL; give one like http://127.0.0.1:4317")),
        }
    }
}

impl From<GrpcEndpoint> for String {
    fn from(endpoint: GrpcEndpoint) -> Self {
        endpoint.0
    }
}

/// A share of something, 0 to 1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

impl Ratio {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Ratio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&ratio) { Ok(Self(ratio)) } else { Err(format!("{ratio} is not 0 to 1")) }
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

/// How many connections: 1 to 256.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PoolSize(u32);

impl PoolSize {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for PoolSize {
    type Error = String;

    fn try_from(size: u32) -> Result<Self, String> {
        if (1..=256).contains(&size) { Ok(Self(size)) } else { Err(format!("{size} is not 1 to 256")) }
    }
}

impl From<PoolSize> for u32 {
    fn from(size: PoolSize) -> Self {
        size.0
    }
}

/// `[contests.NAME]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContestSection {
    /// A list of names, or a file with one name a line; any name if absent.
    pub candidates: Option<Candidates>,
    /// `one` or `many`.
    pub votes_per_voter: VotesPerVoter,
    /// When voting begins (RFC 3339).
    pub opens: Option<Timestamp>,
    /// When it ends: votes at or after this time are refused.
    pub closes: Option<Timestamp>,
}

/// The names that can be voted for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Candidates {
    /// The names themselves.
    List(Vec<String>),
    /// A text file with one name a line; empty lines are skipped.
    File(PathBuf),
}

/// A configuration that can't be used. The process ends with exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The key at fault.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl ConfigError {
    /// Names a key and what is wrong with it.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// The flags that every program has.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct CommonFlags {
    /// Configuration file (TOML) [default: ovation.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "OVATION_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The stores this program works on
    #[command(flatten)]
    #[serde(flatten)]
    pub stores: StoreFlags,
    /// Where the admin endpoints listen
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// What is logged: a level, or directives like `info,consumer=debug` [default: info]
    #[arg(long, value_name = "LEVEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// How it is logged: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// Trace votes, to this gRPC endpoint of an OTLP collector, like <http://127.0.0.1:4317> [default: not traced]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traces: Option<String>,
    /// A file with the secret under which voters are hashed
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// How much of the vote log is kept once it is counted: a time like 7d or a size like 2GB [default: all]
    #[arg(long, value_name = "LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_retention: Option<String>,
    /// How much of the vote book is kept: a time like 7d or a size like 2GB [default: all]
    #[arg(long, value_name = "LIMIT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub book_retention: Option<String>,
}

/// Where the stores are.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct StoreFlags {
    /// Folder of the embedded stores [default: ./ovation-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// The vote log [default: embedded:]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The tallies [default: embedded:]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tally: Option<String>,
    /// The vote book [default: embedded:]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub book: Option<String>,
    /// Where imported files are: a folder, or a bucket of S3 or Google, like <s3://BUCKET/PREFIX> [default: objects in the folder of --data]
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objects: Option<String>,
}

/// How people's questions are answered.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct ReadFlags {
    /// A file with the token by which readers of single votes and datasets are known; needed beyond loopback
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_token_file: Option<PathBuf>,
    /// How many questions may be in the archive at a time [default: 2]
    #[arg(long, value_name = "CONNECTIONS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_pool: Option<u32>,
    /// The most bytes of answers that are kept [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<usize>,
}

/// What stands before a door.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct DoorFlags {
    /// Proxies that tell a client's address in X-Forwarded-For: addresses and networks, with commas [default: none]
    #[arg(long, value_name = "NETWORKS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_proxies: Option<String>,
}

impl Config {
    /// The defaults, with the admin port of the program.
    fn defaults(admin_port: u16) -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            data: "ovation-data".into(),
            queue: "embedded:".into(),
            tally: "embedded:".into(),
            book: "embedded:".into(),
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
            log_retention: None,
            book_retention: None,
            forward: None,
            queue_votes: 20_000,
            log: "info".into(),
            log_format: LogFormat::Text,
            traces: None,
            traces_ratio: Ratio(1.0),
            contests: BTreeMap::new(),
        }
    }

    /// Reads the configuration. `flags` serialises to the keys that were given on the command line.
    ///
    /// # Errors
    /// Names the first key with a bad value.
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
        // Only our own keys: Kubernetes puts variables like OVATION_SERVICE_HOST into every container.
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        figment = figment.merge(Env::prefixed("OVATION_").only(&keys)).merge(Serialized::defaults(flags));
        let config: Self = figment.extract().map_err(|error| explain(&error))?;
        config.contests()?;
        Ok(config)
    }

    /// The voters' secret of `secret_file`, without the line's end.
    ///
    /// # Errors
    /// If the file can't be read, or its secret is too short.
    pub fn secret(&self) -> Result<Option<VoterSecret>, ConfigError> {
        let Some(path) = &self.secret_file else { return Ok(None) };
        let problem = |problem: String| ConfigError::new("secret_file", format!("{}: {problem}", path.display()));
        let bytes = fs::read(path).map_err(|error| problem(error.to_string()))?;
        VoterSecret::new(bytes.trim_ascii_end()).map(Some).map_err(problem)
    }

    /// The readers' token, of `read_token` or `read_token_file`, without the line's end.
    ///
    /// # Errors
    /// If both are given, the file can't be read or has no token; and if there is none though the results can be reached from beyond this machine,
    /// where anybody could read single votes.
    pub fn read_token(&self) -> Result<Option<ReadToken>, ConfigError> {
        let problem = |problem: String| ConfigError::new("read_token_file", problem);
        let Some(path) = &self.read_token_file else {
            if let Some(token) = &self.read_token {
                return Ok(Some(token.clone()));
            }
            if self.results.ip().is_loopback() {
                return Ok(None);
            }
            return Err(problem(format!(
                "the results listen on {}, where others than this machine could read single votes; name a file with a token of at \
                 least {} characters, for instance from `openssl rand -hex 32`, or listen on 127.0.0.1",
                self.results,
                ReadToken::MIN_BYTES
            )));
        };
        if self.read_token.is_some() {
            return Err(problem("is given, and so is read_token; give one of them".to_owned()));
        }
        let at = |what: String| problem(format!("{}: {what}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
        ReadToken::new(text.trim_ascii_end()).map(Some).map_err(at)
    }

    /// The contests with their rules.
    ///
    /// # Errors
    /// Names the contest and its key.
    pub fn contests(&self) -> Result<Arc<Contests>, ConfigError> {
        let mut contests = BTreeMap::new();
        for (id, section) in &self.contests {
            let at = |key| format!("contests.{id}.{key}");
            let candidates = match &section.candidates {
                None => None,
                Some(Candidates::List(names)) => Some(names.clone()),
                Some(Candidates::File(path)) => {
                    let text = fs::read_to_string(path)
                        .map_err(|error| ConfigError::new(at("candidates"), format!("{}: {error}", path.display())))?;
                    Some(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
                }
            };
            let millis = |time: Option<Timestamp>| time.map(|time| UnixMillis(time.as_millisecond()));
            let contest =
                Contest::new(candidates, section.votes_per_voter, millis(section.opens), millis(section.closes))
                    .map_err(|error| ConfigError::new(at(error.key), error.problem))?;
            if let Some(retention) = self.book_retention
                && !contest.can_expire(retention)
            {
                let problem = format!(
                    "the contest {id} has one vote per voter, and a voter's second vote is only known while the first is in \
                     the book: give a time that is no shorter than the contest is open, which needs `opens` and `closes`"
                );
                return Err(ConfigError::new("book_retention", problem));
            }
            contests.insert(id.clone(), contest);
        }
        Ok(Arc::new(Contests::new(contests)))
    }
}

fn keys_of(config: &Config) -> Result<Vec<String>, ConfigError> {
    let value = figment::value::Value::serialize(config).map_err(|error| explain(&error))?;
    Ok(value.into_dict().unwrap_or_default().into_keys().filter(|key| key != "contests").collect())
}

/// A sentence that names the key, and where its value came from.
fn explain(error: &figment::Error) -> ConfigError {
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
