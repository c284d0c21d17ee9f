//! Ports on servers: which the URLs name, and each one's adapter.

use std::{sync::Arc, time::Duration};

use service::{Config, ConfigError};
use tokio::sync::OnceCell;
use votes::{Answers, Archive, Book, ChunkQueue, Datasets, Imports, Tallies, VoteFeed, VoteQueue};

use super::{
    Needs,
    error::{NotOpen, without},
};

/// The archive on kept connections, and the one on new ones.
pub(super) type Archives = (Arc<dyn Archive>, Arc<dyn Archive>);

/// Stores on servers of their own. Those that are safe to share are opened once.
#[allow(dead_code, reason = "which URLs are read depends on the features")]
pub(super) struct Servers {
    queue: String,
    tally: String,
    book: String,
    queue_votes: usize,
    pub(super) patience: Option<Duration>,
    pub(super) queue_port: OnceCell<Arc<dyn VoteQueue>>,
    pub(super) book_port: OnceCell<Arc<dyn Book>>,
    pub(super) tallies_port: OnceCell<Arc<dyn Tallies>>,
}

/// Connections on which datasets are described, made and filled.
#[cfg(feature = "mongo")]
const DATASETS_CONNECTIONS: u32 = 4;

/// The URL of an embedded store.
pub(super) const EMBEDDED: &str = "embedded:";

#[allow(clippy::unused_async, reason = "which ports are opened depends on the features")]
impl Servers {
    /// `None` if all stores are embedded.
    pub(super) fn of(config: &Config, needs: Needs, patience: Option<Duration>) -> Result<Option<Self>, ConfigError> {
        let urls = [
            ("queue", &config.queue, "kafka", ["kafka://"].as_slice(), cfg!(feature = "kafka")),
            ("tally", &config.tally, "redis", &["redis://", "rediss://"], cfg!(feature = "redis")),
            ("book", &config.book, "mongo", &["mongodb://", "mongodb+srv://"], cfg!(feature = "mongo")),
        ];
        let mut embedded = Vec::new();
        for (key, url, feature, schemes, is_built) in urls {
            if url == EMBEDDED {
                embedded.push(key);
                continue;
            }
            if !schemes.iter().any(|scheme| url.starts_with(scheme)) {
                let known = schemes.join("... or ");
                // Only how it begins: there may be a password in it.
                let begins = url
                    .split_once("://")
                    .map_or_else(|| format!("{url:?} names"), |(scheme, _)| format!("{scheme}:// begins"));
                let problem = format!("{begins} no store of this kind; give {known}... or {EMBEDDED}");
                return Err(ConfigError::new(key, problem));
            }
            if !is_built {
                return Err(without(key, feature));
            }
        }
        match embedded.as_slice() {
            [] => {}
            [..] if needs == Needs::Log && !embedded.contains(&"queue") => {}
            [_, _, _] => return Ok(None),
            [key, ..] => {
                let problem = "embedded stores and servers can't be mixed: give the URLs of all three, or of none";
                return Err(ConfigError::new(*key, problem));
            }
        }
        Ok(Some(Self {
            queue: config.queue.clone(),
            tally: config.tally.clone(),
            book: config.book.clone(),
            queue_votes: config.queue_votes,
            patience,
            queue_port: OnceCell::new(),
            book_port: OnceCell::new(),
            tallies_port: OnceCell::new(),
        }))
    }

    pub(super) async fn open_queue(&self) -> Result<Arc<dyn VoteQueue>, NotOpen> {
        #[cfg(feature = "kafka")]
        return Ok(Arc::new(crate::kafka::KafkaQueue::connect(&self.queue, self.queue_votes).await?));
        #[cfg(not(feature = "kafka"))]
        unreachable!("refused when the configuration was read")
    }

    pub(super) async fn open_feed(&self, membership: Membership) -> Result<Arc<dyn VoteFeed>, NotOpen> {
        #[cfg(feature = "kafka")]
        return Ok(Arc::new(crate::kafka::KafkaFeed::connect(&self.queue, membership).await?));
        #[cfg(not(feature = "kafka"))]
        unreachable!("refused when the configuration was read, {membership:?}")
    }

    pub(super) async fn open_book(&self) -> Result<Arc<dyn Book>, NotOpen> {
        #[cfg(feature = "mongo")]
        return Ok(Arc::new(crate::meters::MeteredBook::new(Arc::new(
            crate::mongo::MongoBook::connect(&self.book).await?,
        ))));
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read")
    }

    pub(super) async fn open_archives(&self, connections: u32) -> Result<Archives, NotOpen> {
        #[cfg(feature = "mongo")]
        {
            use crate::{
                meters::MeteredArchive,
                mongo::{DirectArchive, MongoArchive, Place},
            };

            let place = Place::of(&self.book, connections).await?;
            let pool = MeteredArchive::new(Arc::new(MongoArchive::new(place.connect().await?)), "pool");
            let direct = MeteredArchive::new(Arc::new(DirectArchive::new(place)), "direct");
            Ok((Arc::new(pool), Arc::new(direct)))
        }
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read, {connections}")
    }

    pub(super) async fn open_imports(&self) -> Result<Arc<dyn Imports>, NotOpen> {
        #[cfg(feature = "mongo")]
        return Ok(Arc::new(crate::mongo::MongoImports::new(
            &crate::mongo::Place::of(&self.book, DATASETS_CONNECTIONS).await?.connect().await?,
        )));
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read")
    }

    pub(super) async fn open_chunks(&self) -> Result<Arc<dyn ChunkQueue>, NotOpen> {
        #[cfg(feature = "kafka")]
        return Ok(Arc::new(crate::kafka::KafkaChunks::connect(&self.queue).await?));
        #[cfg(not(feature = "kafka"))]
        unreachable!("refused when the configuration was read")
    }

    /// On connections of their own: a kept answer to a question about a dataset needs its version, which must not wait behind questions
    /// that look through many rows.
    pub(super) async fn open_datasets(&self) -> Result<Arc<dyn Datasets>, NotOpen> {
        #[cfg(feature = "mongo")]
        {
            use crate::mongo::{MongoDatasets, Place};

            let place = Place::of(&self.book, DATASETS_CONNECTIONS).await?;
            Ok(Arc::new(MongoDatasets::new(&place.connect().await?)))
        }
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read")
    }

    pub(super) fn open_answers(&self, bytes: usize) -> Result<Arc<dyn Answers>, NotOpen> {
        #[cfg(feature = "redis")]
        return Ok(Arc::new(crate::redis::RedisAnswers::new(&self.tally, bytes)?));
        #[cfg(not(feature = "redis"))]
        unreachable!("refused when the configuration was read, {bytes}")
    }

    pub(super) async fn open_tallies(&self) -> Result<Arc<dyn Tallies>, NotOpen> {
        #[cfg(feature = "redis")]
        return Ok(Arc::new(crate::meters::MeteredTallies::new(Arc::new(
            crate::redis::RedisTallies::connect(&self.tally).await?,
        ))));
        #[cfg(not(feature = "redis"))]
        unreachable!("refused when the configuration was read")
    }
}

/// Who else reads the log with a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The consumers of one group: each has a share of the partitions.
    Group,
    /// Nobody: it has all partitions.
    Alone,
}
