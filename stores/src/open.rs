//! Opens the stores of a configuration.

use std::{sync::Arc, time::Duration};

use query::{ChunkQueue, Datasets, Imports, Objects, QueryStore, ResponseCache};
use service::{
    config::{Config, ConfigError},
    health::{Criticality, Health},
    program::Failure,
};
use stores_kafka::Membership;
use stores_objects::{Location, LocationError, ObjectStorage};
use stores_sqlite::Embedded;
use tokio::{sync::OnceCell, try_join};
use votes::{Contests, LogReader, LogWriter, OpenError, Tallies, VoterSecret, WholeLedger};

use crate::{
    error::failure,
    folder::Folder,
    health_probe::HealthProbe,
    servers::{EMBEDDED, Scope, Servers},
    source::Source,
};

/// The time after which a command does not try again to open a port. Services try without end, because a server may
/// start after its clients.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The stores of a system. Each method that opens a port also registers the health check of this port.
///
/// The log writer, the ledger, the tallies and the objects are opened once and shared. Each of the other methods opens
/// a new port.
#[derive(Clone)]
pub struct Stores {
    source: Arc<dyn Source>,
    /// The time after which opening a port is not tried again. `None` if it is tried without end.
    open_timeout: Option<Duration>,
    secret: Option<VoterSecret>,
    read_pool_size: u32,
    cache_bytes: usize,
    objects: Location,
    opened: Arc<OpenedPorts>,
    health: Health,
}

/// Ports that are opened once and shared. The first caller of a port opens it, and other callers wait for this first
/// caller.
#[derive(Default)]
struct OpenedPorts {
    log_writer: OnceCell<Arc<dyn LogWriter>>,
    ledger: OnceCell<Arc<dyn WholeLedger>>,
    tallies: OnceCell<Arc<dyn Tallies>>,
    objects: OnceCell<Arc<dyn Objects>>,
}

/// The ports that queries need.
#[derive(Clone)]
pub struct QueryPorts {
    /// The query store, on a pool of connections.
    pub pool: Arc<dyn QueryStore>,
    /// The query store, on a new connection for each query, for comparison.
    pub direct: Arc<dyn QueryStore>,
    /// The descriptions of the datasets.
    pub datasets: Arc<dyn Datasets>,
    /// The cached responses.
    pub response_cache: Arc<dyn ResponseCache>,
}

/// The ports that imports need, besides the datasets of [`QueryPorts`].
#[derive(Clone)]
pub struct ImportPorts {
    /// The states of the imports.
    pub imports: Arc<dyn Imports>,
    /// The queue of their chunks.
    pub chunks: Arc<dyn ChunkQueue>,
    /// The store of the files.
    pub objects: Arc<dyn Objects>,
}

/// The access of a command to the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The command reads the stores. Another process may write to them meanwhile.
    Read,
    /// The command changes the stores. Embedded stores must not be in use by another process.
    Write,
}

impl Stores {
    /// Creates the stores for a process that reads and writes them. Opens the files of embedded stores, and connects to
    /// no server yet.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration is invalid, [`OpenError`] if an embedded store can't be opened.
    pub fn open(config: &Config, health: &Health) -> Result<Self, Failure> {
        Self::new(config, Scope::All, Access::Write, None, health.clone())
    }

    /// Creates the stores for a process that only uses the vote log. If the log is on servers, the other URLs may be
    /// absent.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_log(config: &Config, health: &Health) -> Result<Self, Failure> {
        Self::new(config, Scope::VoteLog, Access::Write, None, health.clone())
    }

    /// Creates the stores for a command. After ten seconds, opening a port is not tried again.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for_command(config: &Config, access: Access) -> Result<Self, Failure> {
        Self::new(config, Scope::All, access, Some(OPEN_TIMEOUT), Health::default())
    }

    fn new(
        config: &Config,
        scope: Scope,
        access: Access,
        open_timeout: Option<Duration>,
        health: Health,
    ) -> Result<Self, Failure> {
        // Check the rest of the configuration first, because opening the stores may create a folder.
        let secret = config.secret()?;
        let objects = Location::of(config.objects.as_deref(), &config.data).map_err(bad_location)?;
        let source: Arc<dyn Source> = match (Servers::from_config(config, scope)?, access) {
            (Some(servers), _) => Arc::new(servers),
            (None, Access::Write) => Arc::new(Folder::open(&config.data, config.max_queued_votes)?),
            (None, Access::Read) => Arc::new(Folder::open_for_reading(&config.data)?),
        };
        Ok(Self {
            source,
            open_timeout,
            secret,
            read_pool_size: config.read_pool.get(),
            cache_bytes: config.cache_bytes,
            objects,
            opened: Arc::default(),
            health,
        })
    }

    /// Opens the writing end of the vote log.
    ///
    /// # Errors
    /// If the URL is wrong, or if the server does not have the required settings. If the server is not reachable, a
    /// service waits until it is, and a command fails after about ten seconds.
    pub async fn log_writer(&self, criticality: Criticality) -> Result<Arc<dyn LogWriter>, Failure> {
        let probe = self.probe("vote log", criticality);
        let open = || probe.open_port("vote_log", self.open_timeout, || self.source.log_writer());
        Ok(probe.show_at_health(Arc::clone(self.opened.log_writer.get_or_try_init(open).await?)))
    }

    /// Opens a log reader for counting. It shares the partitions with the log readers of the other consumers.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn log_reader(&self, criticality: Criticality) -> Result<Arc<dyn LogReader>, Failure> {
        self.probe("vote log reader", criticality)
            .open_port("vote_log", self.open_timeout, || self.source.log_reader(Membership::Group))
            .await
    }

    /// Opens a log reader that reads all partitions. It is no member of the consumer group, so it takes no partition
    /// from a consumer.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn standalone_log_reader(&self, criticality: Criticality) -> Result<Arc<dyn LogReader>, Failure> {
        self.probe("vote log", criticality)
            .open_port("vote_log", self.open_timeout, || self.source.log_reader(Membership::Standalone))
            .await
    }

    /// Opens the ledger.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn ledger(&self, criticality: Criticality) -> Result<Arc<dyn WholeLedger>, Failure> {
        let probe = self.probe("ledger", criticality);
        let open = || probe.open_port("ledger", self.open_timeout, || self.source.ledger());
        Ok(probe.show_at_health(Arc::clone(self.opened.ledger.get_or_try_init(open).await?)))
    }

    /// Opens the tallies.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn tallies(&self, criticality: Criticality) -> Result<Arc<dyn Tallies>, Failure> {
        let probe = self.probe("tallies", criticality);
        let open = || probe.open_port("tallies", self.open_timeout, || self.source.tallies());
        Ok(probe.show_at_health(Arc::clone(self.opened.tallies.get_or_try_init(open).await?)))
    }

    /// Opens the ports that queries need. Does not wait for the server of the response cache, because queries work
    /// without the cache.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn query_ports(&self, criticality: Criticality) -> Result<QueryPorts, Failure> {
        let query_probe = self.probe("query store", criticality);
        let datasets_probe = self.probe("datasets", criticality);
        let cache_probe = self.probe("response cache", criticality);
        let response_cache = self
            .source
            .response_cache(self.cache_bytes)
            .map_err(|error| failure(error, "tallies", "response cache"))?;
        let open = || self.source.query_stores(self.read_pool_size);
        let (pool, direct) = query_probe.open_with_retry("ledger", self.open_timeout, open).await?;
        Ok(QueryPorts {
            pool: query_probe.show_at_health(pool),
            direct,
            datasets: datasets_probe.open_port("ledger", self.open_timeout, || self.source.datasets()).await?,
            response_cache: cache_probe.show_at_health(response_cache),
        })
    }

    /// Opens the store where datasets are created and filled.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn datasets(&self, criticality: Criticality) -> Result<Arc<dyn Datasets>, Failure> {
        self.probe("datasets", criticality).open_port("ledger", self.open_timeout, || self.source.datasets()).await
    }

    /// Opens the store of the states of imports.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn imports(&self, criticality: Criticality) -> Result<Arc<dyn Imports>, Failure> {
        self.probe("imports", criticality).open_port("ledger", self.open_timeout, || self.source.imports()).await
    }

    /// Opens the queue of the chunks of imports.
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn chunks(&self, criticality: Criticality) -> Result<Arc<dyn ChunkQueue>, Failure> {
        self.probe("chunks", criticality).open_port("vote_log", self.open_timeout, || self.source.chunks()).await
    }

    /// Opens the store of the imported files. A folder is created when the first file is written.
    ///
    /// # Errors
    /// If the environment has an invalid setting of the object store. The store need not be reachable: `/health` shows
    /// whether it is.
    pub async fn objects(&self, criticality: Criticality) -> Result<Arc<dyn Objects>, Failure> {
        let probe = self.probe("objects", criticality);
        let open = async || {
            ObjectStorage::open(&self.objects)
                .map(|objects| Arc::new(objects) as Arc<dyn Objects>)
                .map_err(bad_location)
        };
        Ok(probe.show_at_health(Arc::clone(self.opened.objects.get_or_try_init(open).await?)))
    }

    /// Opens the ports that imports need, besides the datasets of [`query_ports`](Self::query_ports).
    ///
    /// # Errors
    /// As [`log_writer`](Self::log_writer).
    pub async fn import_ports(&self, criticality: Criticality) -> Result<ImportPorts, Failure> {
        let (imports, chunks, objects) =
            try_join!(self.imports(criticality), self.chunks(criticality), self.objects(criticality))?;
        Ok(ImportPorts { imports, chunks, objects })
    }

    /// Returns the secret that voters are hashed with: the configured secret, or the secret of the embedded stores.
    ///
    /// # Errors
    /// If there is no secret, and a contest has one vote per voter.
    pub fn secret(&self, contests: &Contests) -> Result<Option<VoterSecret>, ConfigError> {
        let secret = self.secret.clone().or_else(|| self.source.secret());
        if secret.is_none() && contests.require_secret() {
            let problem = "a contest has one vote per voter, and voters are hashed with a secret that all producers share; \
                give a file of at least 16 random bytes";
            return Err(ConfigError::new("secret_file", problem));
        }
        Ok(secret)
    }

    /// Returns whether a consumer may be counting votes: the consumer group of the vote log has a member, or a process
    /// has opened the embedded stores for writing.
    ///
    /// # Errors
    /// If the vote log is not reachable.
    pub async fn has_consumers(config: &Config) -> Result<bool, Failure> {
        if config.vote_log == EMBEDDED {
            return stores_sqlite::is_in_use(&config.data)
                .map_err(|error| OpenError::new(config.data.display(), error).into());
        }
        stores_kafka::has_consumers(&config.vote_log).await.map_err(|error| failure(error, "vote_log", "vote log"))
    }

    /// Returns the damage of embedded stores: damaged pages, and ballots without a vote. For servers the list is empty.
    ///
    /// # Errors
    /// If the stores can't be opened.
    pub fn integrity_errors(config: &Config) -> Result<Vec<String>, OpenError> {
        if config.vote_log == EMBEDDED { Embedded::integrity_errors(&config.data) } else { Ok(Vec::new()) }
    }

    fn probe(&self, name: &'static str, criticality: Criticality) -> HealthProbe {
        HealthProbe::new(&self.health, name, criticality)
    }
}

fn bad_location(LocationError { key, problem }: LocationError) -> ConfigError {
    ConfigError::new(key, problem)
}
