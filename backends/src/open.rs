//! Opens the ports from their URLs, and shows each one's state at `/health` from then on.

use std::{
    fmt::Display,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use service::{Config, ConfigError, Health, health::Weight, program::Failure};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
    try_join,
};
use votes::{
    Answers, Archive, Book, ChunkQueue, Contests, Datasets, Imports, Objects, Store, StoreError, Tallies, VoteFeed,
    VoteQueue, VoterSecret,
};

#[cfg(feature = "embedded")]
use crate::embedded::{self, Embedded};

/// How often a server that can't be reached is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// How long a command waits for a server. Services wait for ever: the server may start after them.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store that can't be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct OpenError {
    what: String,
    problem: String,
}

impl OpenError {
    pub(crate) fn new(what: impl Display, problem: impl Display) -> Self {
        Self { what: what.to_string(), problem: problem.to_string() }
    }
}

/// Why a server is not open.
#[derive(Debug)]
pub(crate) enum NotOpen {
    /// The URL is wrong: what it should be.
    BadUrl(String),
    /// The server is not as it has to be, and what would be right. Trying again is no use.
    Refused(String),
    /// It did not answer as it should, but may soon.
    Unreachable(String),
}

impl NotOpen {
    /// If this is about a server's certificate: that it is not trusted, and which option names the authority that signed it.
    pub(crate) fn untrusted(problem: &str, option: &str) -> Option<Self> {
        problem.to_lowercase().contains("certificate").then(|| {
            Self::Refused(format!(
                "{problem}; its certificate has to name this host and be signed by an authority that is known here: give the \
                 authority's certificate (PEM) by {option}"
            ))
        })
    }

    /// For the person who gave the URL; `key` is its key in the configuration.
    fn told(self, key: &str, store: &str) -> Failure {
        match self {
            Self::BadUrl(problem) => ConfigError::new(key, problem).into(),
            Self::Refused(problem) | Self::Unreachable(problem) => OpenError::new(store, problem).into(),
        }
    }
}

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
            None => Err(without("queue", "embedded").into()),
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
            None => Err(without("queue", "embedded").into()),
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
        Err(without("objects", "objects"))
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
        Err(without("queue", "kafka").into())
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

    /// Shows a port at `/health`, from before it is open.
    fn watch(&self, name: &'static str, weight: Weight) -> Watch {
        let state: State = Arc::new(Mutex::new(Err("not opened yet".to_owned())));
        let shown = Arc::clone(&state);
        self.health.check(name, weight, move || {
            let store = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move {
                let store = store?.upgrade().ok_or("closed")?;
                store.check().await.map_err(|error: StoreError| error.to_string())
            }
        });
        Watch { name, state }
    }
}

/// What `/health` asks about a port: the open store, or why it is not open.
struct Watch {
    name: &'static str,
    state: State,
}

/// The store is not kept open by being watched: a feed that its consumer drops leaves the group at once.
type State = Arc<Mutex<Result<Weak<dyn Store>, String>>>;

impl Watch {
    fn show(&self, state: Result<Weak<dyn Store>, String>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn opened<P: Port + ?Sized>(&self, port: Arc<P>) -> Arc<P> {
        self.show(Ok(Arc::downgrade(&P::as_store(Arc::clone(&port)))));
        port
    }

    /// Opens a port on a server that may not be up yet. `key` is the configuration's key of its URL.
    async fn reach<P: Port + ?Sized, F: Future<Output = Result<Arc<P>, NotOpen>>>(
        &self,
        key: &'static str,
        patience: Option<Duration>,
        open: impl Fn() -> F,
    ) -> Result<Arc<P>, Failure> {
        Ok(self.opened(self.reach_any(key, patience, open).await?))
    }

    /// As [`reach`](Self::reach), of what is no port, or several.
    async fn reach_any<P, F: Future<Output = Result<P, NotOpen>>>(
        &self,
        key: &'static str,
        patience: Option<Duration>,
        open: impl Fn() -> F,
    ) -> Result<P, Failure> {
        let begun = Instant::now();
        let mut told = None;
        loop {
            let problem = match open().await {
                Ok(port) => return Ok(port),
                Err(NotOpen::Unreachable(problem)) if patience.is_none_or(|patience| begun.elapsed() < patience) => {
                    problem
                }
                Err(error) => return Err(error.told(key, self.name)),
            };
            if told.as_ref() != Some(&problem) {
                tracing::warn!(store = self.name, problem, "waiting for a store");
                told = Some(problem.clone());
            }
            self.show(Err(problem));
            sleep(TRY_AGAIN).await;
        }
    }
}

/// A port, as what all ports have in common.
trait Port {
    fn as_store(port: Arc<Self>) -> Arc<dyn Store>;
}

macro_rules! ports {
    ($($port:ident)*) => {$(
        impl Port for dyn $port {
            fn as_store(port: Arc<Self>) -> Arc<dyn Store> {
                port
            }
        }
    )*};
}

ports!(VoteQueue VoteFeed Book Tallies Archive Datasets Answers Imports ChunkQueue Objects);

/// The archive on kept connections, and the one on new ones.
type Archives = (Arc<dyn Archive>, Arc<dyn Archive>);

/// Stores on servers of their own. Those that are safe to share are opened once.
#[allow(dead_code, reason = "which URLs are read depends on the features")]
struct Servers {
    queue: String,
    tally: String,
    book: String,
    queue_votes: usize,
    patience: Option<Duration>,
    queue_port: OnceCell<Arc<dyn VoteQueue>>,
    book_port: OnceCell<Arc<dyn Book>>,
    tallies_port: OnceCell<Arc<dyn Tallies>>,
}

/// Connections on which datasets are described, made and filled.
#[cfg(feature = "mongo")]
const DATASETS_CONNECTIONS: u32 = 4;

/// The URL of an embedded store.
const EMBEDDED: &str = "embedded:";

#[allow(clippy::unused_async, reason = "which ports are opened depends on the features")]
impl Servers {
    /// `None` if all stores are embedded.
    fn of(config: &Config, needs: Needs, patience: Option<Duration>) -> Result<Option<Self>, ConfigError> {
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

    async fn open_queue(&self) -> Result<Arc<dyn VoteQueue>, NotOpen> {
        #[cfg(feature = "kafka")]
        return Ok(Arc::new(crate::kafka::KafkaQueue::connect(&self.queue, self.queue_votes).await?));
        #[cfg(not(feature = "kafka"))]
        unreachable!("refused when the configuration was read")
    }

    async fn open_feed(&self, membership: Membership) -> Result<Arc<dyn VoteFeed>, NotOpen> {
        #[cfg(feature = "kafka")]
        return Ok(Arc::new(crate::kafka::KafkaFeed::connect(&self.queue, membership).await?));
        #[cfg(not(feature = "kafka"))]
        unreachable!("refused when the configuration was read, {membership:?}")
    }

    async fn open_book(&self) -> Result<Arc<dyn Book>, NotOpen> {
        #[cfg(feature = "mongo")]
        return Ok(Arc::new(crate::meters::MeteredBook::new(Arc::new(
            crate::mongo::MongoBook::connect(&self.book).await?,
        ))));
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read")
    }

    async fn open_archives(&self, connections: u32) -> Result<Archives, NotOpen> {
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

    async fn open_imports(&self) -> Result<Arc<dyn Imports>, NotOpen> {
        #[cfg(feature = "mongo")]
        return Ok(Arc::new(crate::mongo::MongoImports::new(
            &crate::mongo::Place::of(&self.book, DATASETS_CONNECTIONS).await?.connect().await?,
        )));
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read")
    }

    async fn open_chunks(&self) -> Result<Arc<dyn ChunkQueue>, NotOpen> {
        #[cfg(feature = "kafka")]
        return Ok(Arc::new(crate::kafka::KafkaChunks::connect(&self.queue).await?));
        #[cfg(not(feature = "kafka"))]
        unreachable!("refused when the configuration was read")
    }

    /// On connections of their own: a kept answer to a question about a dataset needs its version, which must not wait behind questions
    /// that look through many rows.
    async fn open_datasets(&self) -> Result<Arc<dyn Datasets>, NotOpen> {
        #[cfg(feature = "mongo")]
        {
            use crate::mongo::{MongoDatasets, Place};

            let place = Place::of(&self.book, DATASETS_CONNECTIONS).await?;
            Ok(Arc::new(MongoDatasets::new(&place.connect().await?)))
        }
        #[cfg(not(feature = "mongo"))]
        unreachable!("refused when the configuration was read")
    }

    fn open_answers(&self, bytes: usize) -> Result<Arc<dyn Answers>, NotOpen> {
        #[cfg(feature = "redis")]
        return Ok(Arc::new(crate::redis::RedisAnswers::new(&self.tally, bytes)?));
        #[cfg(not(feature = "redis"))]
        unreachable!("refused when the configuration was read, {bytes}")
    }

    async fn open_tallies(&self) -> Result<Arc<dyn Tallies>, NotOpen> {
        #[cfg(feature = "redis")]
        return Ok(Arc::new(crate::meters::MeteredTallies::new(Arc::new(
            crate::redis::RedisTallies::connect(&self.tally).await?,
        ))));
        #[cfg(not(feature = "redis"))]
        unreachable!("refused when the configuration was read")
    }
}

/// A part of a folder that is there to be changed.
#[cfg(feature = "embedded")]
fn writable<T>(part: &'static str, opened: Option<T>) -> Result<T, OpenError> {
    opened.ok_or_else(|| OpenError::new(part, "the stores are open for reading only"))
}

fn without(key: &str, feature: &str) -> ConfigError {
    ConfigError::new(key, format!("this program was built without the feature `{feature}`"))
}

/// Who else reads the log with a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// The consumers of one group: each has a share of the partitions.
    Group,
    /// Nobody: it has all partitions.
    Alone,
}
