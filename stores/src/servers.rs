//! Opens the ports of the stores on servers: Kafka, Redis and `MongoDB`.

use std::sync::Arc;

use async_trait::async_trait;
use query::{ChunkQueue, Datasets, Imports, ResponseCache};
use service::config::{Config, ConfigError};
use stores_kafka::{KafkaChunks, KafkaLogReader, KafkaLogWriter, Membership};
use stores_mongo::{DirectQueryStore, MongoDatasets, MongoImports, MongoLedger, MongoQueryStore, Server};
use stores_redis::{RedisResponseCache, RedisTallies};
use votes::{ConnectError, LogReader, LogWriter, Tallies, VoterSecret, WholeLedger};

use crate::{
    meters::{self, MeteredLedger, MeteredQueryStore, MeteredTallies},
    source::{QueryStores, Source},
};

/// The stores that a process uses. The URLs of the other stores are not required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    VoteLog,
}

/// The URLs of the stores on servers.
pub(crate) struct Servers {
    vote_log_url: String,
    tallies_url: String,
    ledger_url: String,
    max_queued_votes: usize,
}

/// The size of each connection pool for datasets and for imports. It is separate from the pool for queries.
const DATASETS_CONNECTIONS: u32 = 4;

/// The URL of an embedded store.
pub(crate) const EMBEDDED: &str = "embedded:";

impl Servers {
    /// Returns the servers of a configuration, or `None` if all stores are embedded.
    ///
    /// # Errors
    /// If a URL has the wrong scheme, if embedded stores and servers are mixed, or if the URL of the vote log is invalid.
    pub(crate) fn from_config(config: &Config, scope: Scope) -> Result<Option<Self>, ConfigError> {
        let urls = [
            ("vote_log", &config.vote_log, ["kafka://"].as_slice()),
            ("tallies", &config.tallies, &["redis://", "rediss://"]),
            ("ledger", &config.ledger, &["mongodb://", "mongodb+srv://"]),
        ];
        let mut embedded = Vec::new();
        for (key, url, schemes) in urls {
            if url == EMBEDDED {
                embedded.push(key);
                continue;
            }
            if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
                let known = schemes.join("... or ");
                // Show only the scheme, because the URL may contain a password.
                let shown =
                    url.split_once("://").map_or_else(|| format!("{url:?}"), |(scheme, _)| format!("{scheme}://"));
                let problem = format!("{shown} is no URL of this store; give {known}... or {EMBEDDED}");
                return Err(ConfigError::new(key, problem));
            }
        }
        match embedded.as_slice() {
            [] => {}
            [..] if scope == Scope::VoteLog && !embedded.contains(&"vote_log") => {}
            [_, _, _] => return Ok(None),
            [key, ..] => {
                let problem = "embedded stores and servers can't be mixed: give the URLs of all three, or of none";
                return Err(ConfigError::new(*key, problem));
            }
        }
        // Not only when the log is opened: a program opens other stores before the log, and waits for them.
        stores_kafka::check_url(&config.vote_log).map_err(|problem| ConfigError::new("vote_log", problem))?;
        Ok(Some(Self {
            vote_log_url: config.vote_log.clone(),
            tallies_url: config.tallies.clone(),
            ledger_url: config.ledger.clone(),
            max_queued_votes: config.max_queued_votes,
        }))
    }
}

#[async_trait]
impl Source for Servers {
    fn secret(&self) -> Option<VoterSecret> {
        None
    }

    async fn log_writer(&self) -> Result<Arc<dyn LogWriter>, ConnectError> {
        let queued_votes = meters::register_queued_votes(self.max_queued_votes);
        Ok(Arc::new(KafkaLogWriter::connect(&self.vote_log_url, self.max_queued_votes, queued_votes).await?))
    }

    async fn log_reader(&self, membership: Membership) -> Result<Arc<dyn LogReader>, ConnectError> {
        Ok(Arc::new(KafkaLogReader::connect(&self.vote_log_url, membership).await?))
    }

    async fn ledger(&self) -> Result<Arc<dyn WholeLedger>, ConnectError> {
        Ok(Arc::new(MeteredLedger::new(Arc::new(MongoLedger::connect(&self.ledger_url).await?))))
    }

    async fn tallies(&self) -> Result<Arc<dyn Tallies>, ConnectError> {
        Ok(Arc::new(MeteredTallies::new(Arc::new(RedisTallies::connect(&self.tallies_url).await?))))
    }

    async fn query_stores(&self, connections: u32) -> Result<QueryStores, ConnectError> {
        let server = Server::of(&self.ledger_url, connections).await?;
        let pool = MeteredQueryStore::new(Arc::new(MongoQueryStore::new(server.connect().await?)), "pool");
        let direct = MeteredQueryStore::new(Arc::new(DirectQueryStore::new(server)), "direct");
        Ok((Arc::new(pool), Arc::new(direct)))
    }

    /// Opens a separate pool. Each query of a dataset first reads the dataset's version, and this read must not wait
    /// for queries that scan many rows.
    async fn datasets(&self) -> Result<Arc<dyn Datasets>, ConnectError> {
        let server = Server::of(&self.ledger_url, DATASETS_CONNECTIONS).await?;
        Ok(Arc::new(MongoDatasets::new(&server.connect().await?)))
    }

    async fn imports(&self) -> Result<Arc<dyn Imports>, ConnectError> {
        let server = Server::of(&self.ledger_url, DATASETS_CONNECTIONS).await?;
        Ok(Arc::new(MongoImports::new(&server.connect().await?)))
    }

    async fn chunks(&self) -> Result<Arc<dyn ChunkQueue>, ConnectError> {
        Ok(Arc::new(KafkaChunks::connect(&self.vote_log_url).await?))
    }

    fn response_cache(&self, bytes: usize) -> Result<Arc<dyn ResponseCache>, ConnectError> {
        Ok(Arc::new(RedisResponseCache::new(&self.tallies_url, bytes)?))
    }
}
