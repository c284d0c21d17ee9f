//! Opens the ports from their URLs, and shows each one's state at `/health` from then on.

mod error;
mod servers;
mod watch;

use std::{sync::Arc, time::Duration};

use service::{Config, ConfigError, Health, health::Weight, program::Failure};
use tokio::{sync::OnceCell, try_join};
use votes::{
    Answers, Archive, Book, ChunkQueue, Contests, Datasets, Imports, Objects, Tallies, VoteFeed, VoteQueue, VoterSecret,
};

pub(crate) use error::NotOpen;
pub use error::OpenError;
pub(crate) use servers::Membership;

use servers::{EMBEDDED, Servers};
use watch::Watch;

#[cfg(feature = "embedded")]
use crate::embedded::{self, Embedded};

/// How long a command waits for a server. Services wait for ever: the server may start after them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The three stores of a system. Each port is opened when it is asked for, and from then on shown at `/health`.
#[derive(Clone)]
pub struct Stores {
    place: Place,
    secret: Option<VoterSecret>,
    read_pool: u32,
    cache_bytes: usize,
    #[cfg(feature = "objects")]
    objects: crate::objects::Place,
    objects_port: Arc<OnceCell<Arc<dyn Objects>>>,
    health: Health,
}

/// What people's questions are answered from.
#[derive(Clone)]
pub struct Reading {
    /// The archive, on connections that are kept.
    pub pool: Arc<dyn Archive>,
    /// The archive, on a connection of its own for each question: to compare.
    pub direct: Arc<dyn Archive>,
    /// Which datasets there are.
    pub datasets: Arc<dyn Datasets>,
    /// Answers that are kept.
    pub answers: Arc<dyn Answers>,
}

/// What importing files needs, beside the datasets of [`Reading`].
#[derive(Clone)]
pub struct Importing {
    /// What is known of imports.
    pub imports: Arc<dyn Imports>,
    /// The way of their chunks to workers.
    pub chunks: Arc<dyn ChunkQueue>,
    /// Where the files are.
    pub objects: Arc<dyn Objects>,
}

/// Where the stores are: all in one folder, or each on a server.
#[derive(Clone)]
enum Place {
    #[cfg(feature = "embedded")]
    Folder(Embedded),
    Servers(Arc<Servers>),
}

/// What a process works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    All,
    Log,
}

/// What a command does with the stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads them, beside the process that works on them or while there is none.
    Read,
    /// It changes them; embedded stores only while no other process works on them.
    Write,
}

impl Stores {
    /// The stores for a process that works on them.
    ///
    /// # Errors
    /// [`ConfigError`] if a URL names no store, [`OpenError`] if an embedded store can't be opened: each says what to do.
    pub fn open(config: &Config, health: &Health) -> Result<Self, Failure> {
        Self::open_what(Needs::All, config, health)
    }

    /// The stores for a process that works on the vote log alone: with a log on servers, nothing else has to be named.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_log(config: &Config, health: &Health) -> Result<Self, Failure> {
        Self::open_what(Needs::Log, config, health)
    }

    fn open_what(needs: Needs, config: &Config, health: &Health) -> Result<Self, Failure> {
        Self::at(config, health.clone(), || match Servers::of(config, needs, None)? {
            Some(servers) => Ok(Place::Servers(Arc::new(servers))),
            #[cfg(feature = "embedded")]
            None => Ok(Place::Folder(Embedded::open(&config.data, config.queue_votes)?)),
            #[cfg(not(feature = "embedded"))]
            None => Err(error::without("queue", "embedded").into()),
        })
    }

    /// The stores for a command, which does not wait long for servers.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for_command(config: &Config, access: Access) -> Result<Self, Failure> {
        Self::at(config, Health::default(), || match Servers::of(config, Needs::All, Some(PATIENCE))? {
            Some(servers) => Ok(Place::Servers(Arc::new(servers))),
            #[cfg(feature = "embedded")]
            None => Ok(Place::Folder(match access {
                Access::Read => Embedded::open_for_reading(&config.data)?,
                Access::Write => Embedded::open(&config.data, config.queue_votes)?,
            })),
            #[cfg(not(feature = "embedded"))]
            None => Err(error::without("queue", "embedded").into()),
        })
    }

    /// Opening may make a folder, so the rest of the configuration is looked at before.
    fn at(config: &Config, health: Health, open: impl FnOnce() -> Result<Place, Failure>) -> Result<Self, Failure> {
        Ok(Self {
            secret: config.secret()?,
            read_pool: config.read_pool.get(),
            cache_bytes: config.cache_bytes,
            #[cfg(feature = "objects")]
            objects: crate::objects::Place::of(config)?,
            objects_port: Arc::default(),
            health,
            place: open()?,
        })
    }

    /// The writing end of the vote log.
    ///
    /// # Errors
    /// Of all ports: if the server is not as it has to be. One that can't be reached is waited for.
    pub async fn queue(&self, weight: Weight) -> Result<Arc<dyn VoteQueue>, Failure> {
        let watch = self.watch("vote log", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(folder.queue())),
            Place::Servers(servers) => {
                let open = || watch.reach("queue", servers.patience, || servers.open_queue());
                Ok(watch.opened(Arc::clone(servers.queue_port.get_or_try_init(open).await?)))
            }
        }
    }

    /// A reader of the vote log for counting: it shares the partitions with the other consumers.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn feed(&self, weight: Weight) -> Result<Arc<dyn VoteFeed>, Failure> {
        let watch = self.watch("vote feed", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(folder.feed())),
            Place::Servers(servers) => {
                watch.reach("queue", servers.patience, || servers.open_feed(Membership::Group)).await
            }
        }
    }

    /// A reader of the whole vote log, with positions of its own, that takes no partition from any consumer.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn reader(&self, weight: Weight) -> Result<Arc<dyn VoteFeed>, Failure> {
        let watch = self.watch("vote log", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(folder.feed())),
            Place::Servers(servers) => {
                watch.reach("queue", servers.patience, || servers.open_feed(Membership::Alone)).await
            }
        }
    }

    /// The book.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn book(&self, weight: Weight) -> Result<Arc<dyn Book>, Failure> {
        let watch = self.watch("book", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(Arc::clone(&folder.book))),
            Place::Servers(servers) => {
                let open = || watch.reach("book", servers.patience, || servers.open_book());
                Ok(watch.opened(Arc::clone(servers.book_port.get_or_try_init(open).await?)))
            }
        }
    }

    /// The tallies.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn tallies(&self, weight: Weight) -> Result<Arc<dyn Tallies>, Failure> {
        let watch = self.watch("tallies", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(Arc::clone(&folder.tallies))),
            Place::Servers(servers) => {
                let open = || watch.reach("tally", servers.patience, || servers.open_tallies());
                Ok(watch.opened(Arc::clone(servers.tallies_port.get_or_try_init(open).await?)))
            }
        }
    }

    /// What answers people's questions. Kept answers may be away: then each question goes to the archive.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn reading(&self, weight: Weight) -> Result<Reading, Failure> {
        let (archive, datasets) = (self.watch("archive", weight), self.watch("datasets", weight));
        let kept = self.watch("answers", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(Reading {
                pool: archive.opened(writable("archive", folder.archive(false))?),
                direct: writable("archive", folder.archive(true))?,
                datasets: datasets.opened(writable("datasets", folder.datasets())?),
                answers: kept.opened(writable("answers", folder.answers(self.cache_bytes))?),
            }),
            Place::Servers(servers) => {
                let answers = servers.open_answers(self.cache_bytes).map_err(|error| error.told("tally", "answers"))?;
                let open = || servers.open_archives(self.read_pool);
                let (pool, direct) = archive.reach_any("book", servers.patience, open).await?;
                Ok(Reading {
                    pool: archive.opened(pool),
                    direct,
                    datasets: datasets.reach("book", servers.patience, || servers.open_datasets()).await?,
                    answers: kept.opened(answers),
                })
            }
        }
    }

    /// Where datasets are made and filled.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn datasets(&self, weight: Weight) -> Result<Arc<dyn Datasets>, Failure> {
        let watch = self.watch("datasets", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(writable("datasets", folder.datasets())?)),
            Place::Servers(servers) => watch.reach("book", servers.patience, || servers.open_datasets()).await,
        }
    }

    /// What is known of imports.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn imports(&self, weight: Weight) -> Result<Arc<dyn Imports>, Failure> {
        let watch = self.watch("imports", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(writable("imports", folder.imports())?)),
            Place::Servers(servers) => watch.reach("book", servers.patience, || servers.open_imports()).await,
        }
    }

    /// The way of imports' chunks to workers.
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn chunks(&self, weight: Weight) -> Result<Arc<dyn ChunkQueue>, Failure> {
        let watch = self.watch("chunks", weight);
        match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Ok(watch.opened(writable("chunks", folder.chunks())?)),
            Place::Servers(servers) => watch.reach("queue", servers.patience, || servers.open_chunks()).await,
        }
    }

    /// Imported files. A folder is made when the first one is written.
    ///
    /// # Errors
    /// If the environment says something about the place that can't be. Whether it can be reached is shown at `/health`.
    pub async fn objects(&self, weight: Weight) -> Result<Arc<dyn Objects>, Failure> {
        let watch = self.watch("objects", weight);
        let open = async || self.open_objects();
        Ok(watch.opened(Arc::clone(self.objects_port.get_or_try_init(open).await?)))
    }

    #[allow(clippy::unused_self, reason = "what is opened depends on the features")]
    fn open_objects(&self) -> Result<Arc<dyn Objects>, ConfigError> {
        #[cfg(feature = "objects")]
        return Ok(Arc::new(crate::objects::ObjectStorage::open(&self.objects)?));
        #[cfg(not(feature = "objects"))]
        Err(error::without("objects", "objects"))
    }

    /// What importing files needs, beside the datasets of [`reading`](Self::reading).
    ///
    /// # Errors
    /// As [`queue`](Self::queue).
    pub async fn importing(&self, weight: Weight) -> Result<Importing, Failure> {
        let (imports, chunks, objects) = try_join!(self.imports(weight), self.chunks(weight), self.objects(weight))?;
        Ok(Importing { imports, chunks, objects })
    }

    /// The voters' secret: the configured one, or that which the embedded log keeps.
    ///
    /// # Errors
    /// If there is none and a contest has one vote per voter.
    pub fn secret(&self, contests: &Contests) -> Result<Option<VoterSecret>, ConfigError> {
        let kept = match &self.place {
            #[cfg(feature = "embedded")]
            Place::Folder(folder) => Some(folder.secret.clone()),
            Place::Servers(_) => None,
        };
        let secret = self.secret.clone().or(kept);
        if secret.is_none() && contests.need_secret() {
            let problem = "a contest has one vote per voter, and voters are told apart by a secret that all doors share; \
                name a file of at least 16 random bytes";
            return Err(ConfigError::new("secret_file", problem));
        }
        Ok(secret)
    }

    /// Whether consumers count now.
    ///
    /// # Errors
    /// If the stores can't be asked.
    pub async fn are_counting(config: &Config) -> Result<bool, Failure> {
        #[cfg(feature = "embedded")]
        if config.queue == EMBEDDED {
            return embedded::is_in_use(&config.data)
                .map_err(|error| OpenError::new(config.data.display(), error).into());
        }
        #[cfg(feature = "kafka")]
        return crate::kafka::has_consumers(&config.queue).await.map_err(|error| error.told("queue", "vote log"));
        #[cfg(not(feature = "kafka"))]
        Err(error::without("queue", "kafka").into())
    }

    /// Damage of embedded stores that reading them would not show, in words.
    ///
    /// # Errors
    /// If they can't be opened.
    pub fn damage(config: &Config) -> Result<Vec<String>, OpenError> {
        #[cfg(feature = "embedded")]
        if config.queue == EMBEDDED {
            return Embedded::damage(&config.data);
        }
        let _ = config;
        Ok(Vec::new())
    }

    fn watch(&self, name: &'static str, weight: Weight) -> Watch {
        Watch::new(&self.health, name, weight)
    }
}

/// A part of a folder that is there to be changed.
#[cfg(feature = "embedded")]
fn writable<T>(part: &'static str, opened: Option<T>) -> Result<T, OpenError> {
    opened.ok_or_else(|| OpenError::new(part, "the stores are open for reading only"))
}
