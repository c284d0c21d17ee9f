//! What the results read, and the one place that asks for it: within bounded time, with one line in the log when a store
//! stops answering and one when it answers again.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backends::{Importing, Reading};
use futures::future::try_join_all;
use rocket::http::Status;
use service::{http::Problem, token::ReadToken};
use tokio::{sync::Semaphore, time::timeout};
use votes::{
    AlbumVotes, ContestId, Contests, Dataset, DatasetId, Door, Found, Offset, Partition, RateWindow, Reason, Refusal,
    StoreError, TOP_BANDS, Table, Tallies, UnixMillis, VoteFeed, Window, query::Query,
};

use crate::{
    settled::{Mark, Settlement},
    shared::Shared,
    tally::Standing,
};

/// How long a store may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the log may take to say where it ends. It is the lesser half of a standing, so the tally does not wait long.
const ENDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How many questions people may have in the tallies at a time; more of them wait, within the time-out.
const QUESTIONS: usize = 4;

const TALLIES: &str = "tallies";
const ARCHIVE: &str = "archive";
const DATASETS: &str = "datasets";
const LOG: &str = "vote log";

/// Where the results come from.
#[derive(Clone)]
pub struct Sources {
    /// The contests with their rules.
    pub contests: Arc<Contests>,
    /// The tallies: what the live page, the streams and the rates show.
    pub tallies: Arc<dyn Tallies>,
    /// Single votes and datasets: what the query API searches.
    pub reading: Reading,
    /// The vote log, asked only for where it ends: how many votes have been accepted.
    pub feed: Arc<dyn VoteFeed>,
    /// What importing files needs, beside the datasets.
    pub importing: Importing,
    /// The way of imported votes to the log.
    pub door: Door,
    /// Who may read single votes and datasets; anybody if there is none.
    pub token: Option<ReadToken>,
}

/// The sources, asked with care.
pub(crate) struct Stores {
    sources: Sources,
    standings: BTreeMap<ContestId, Shared<Arc<Standing>>>,
    ends: Shared<u64>,
    known_end: Mutex<Option<u64>>,
    silent: Mutex<BTreeSet<&'static str>>,
    tallies_questions: Arc<Semaphore>,
    archive_questions: Arc<Semaphore>,
    settlement: Mutex<Settlement>,
}

impl Stores {
    pub(crate) fn new(sources: Sources, read_pool: usize) -> Self {
        Self {
            standings: sources.contests.ids().map(|contest| (contest.clone(), Shared::default())).collect(),
            sources,
            ends: Shared::default(),
            known_end: Mutex::default(),
            silent: Mutex::default(),
            tallies_questions: Arc::new(Semaphore::new(QUESTIONS)),
            // Searching a large book takes a machine's whole strength, and counting needs it, too.
            archive_questions: Arc::new(Semaphore::new(read_pool)),
            settlement: Mutex::default(),
        }
    }

    pub(crate) fn contests(&self) -> impl Iterator<Item = &ContestId> {
        self.sources.contests.ids()
    }

    /// The contest that a parameter names, or the default one.
    pub(crate) fn contest(&self, name: Option<&str>) -> Result<&ContestId, Refusal> {
        self.sources.contests.find(name).map(|(contest, _)| contest)
    }

    /// The contest that a path names: a path to anything else leads nowhere, whether or not it could be a contest.
    pub(crate) fn contest_at(&self, segment: &str) -> Result<&ContestId, Refusal> {
        self.contest(Some(segment)).map_err(|refusal| Refusal {
            reason: Reason::UnknownContest,
            field: None,
            ..refusal
        })
    }

    /// A contest as it stands, read after this was called.
    pub(crate) async fn standing(&self, contest: &ContestId) -> Result<Arc<Standing>, StoreError> {
        let read = async {
            let tally = self.sources.tallies.tally(contest, TOP_BANDS);
            let tally = self.ask(TALLIES, ANSWER_TIMEOUT, tally).await?;
            // In this order: what is counted was accepted before.
            let accepted = self.accepted(tally.processed).await?;
            Ok(Arc::new(Standing { tally, accepted }))
        };
        match self.standings.get(contest) {
            Some(shared) => shared.read(read).await,
            None => read.await,
        }
    }

    /// Records on the log, which are at least those that have been processed.
    ///
    /// While the log does not answer it takes no votes either, so its last known end stands.
    pub(crate) async fn accepted(&self, processed: u64) -> Result<u64, StoreError> {
        let ends = async { Ok(self.log_ends().await?.iter().map(|end| end.0).sum()) };
        let ends = self.ends.read(ends).await;
        let mut known = self.known_end.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(ends) = ends {
            *known = Some(ends);
        }
        known.map_or(ends, Ok).map(|ends| ends.max(processed))
    }

    /// The log's end in each partition.
    async fn log_ends(&self) -> Result<Vec<Offset>, StoreError> {
        let feed = &self.sources.feed;
        let bounds = (0..feed.partitions()).map(|partition| feed.bounds(Partition(partition)));
        let bounds = self.ask(LOG, ENDS_TIMEOUT, try_join_all(bounds)).await?;
        Ok(bounds.into_iter().map(|bounds| bounds.end).collect())
    }

    /// How far each partition is in the tallies.
    async fn positions(&self) -> Result<Vec<Offset>, StoreError> {
        let tallies = &self.sources.tallies;
        let positions = (0..self.sources.feed.partitions()).map(|partition| tallies.position(Partition(partition)));
        self.ask(TALLIES, ANSWER_TIMEOUT, try_join_all(positions)).await
    }

    /// The latest moment of which it is known that every vote accepted before it is counted.
    pub(crate) async fn settled(&self) -> Result<Option<Mark>, StoreError> {
        let now = UnixMillis::now();
        let mark = Mark::new(now, self.log_ends().await?);
        let positions = self.positions().await?;
        Ok(self.settlement.lock().unwrap_or_else(PoisonError::into_inner).look(mark, &positions))
    }

    /// Whether the tallies still have what was settled: they may have been lost meanwhile.
    pub(crate) async fn still_has(&self, mark: &Mark) -> Result<bool, StoreError> {
        Ok(mark.is_passed(&self.positions().await?))
    }

    /// Waits until the tallies' version is another than `seen`.
    pub(crate) async fn changed(&self, seen: u64) -> Result<u64, StoreError> {
        self.sources.tallies.changed(seen).await
    }

    pub(crate) async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        let (tallies, contest) = (Arc::clone(&self.sources.tallies), contest.clone());
        self.query(TALLIES, &self.tallies_questions, async move { tallies.albums(&contest, top).await }).await
    }

    pub(crate) async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError> {
        let (tallies, contest) = (Arc::clone(&self.sources.tallies), contest.cloned());
        let answer = async move { tallies.rates(contest.as_ref(), window, from, to).await };
        self.query(TALLIES, &self.tallies_questions, answer).await
    }

    /// A page of votes or of a dataset, on a connection that is kept or, with `is_direct`, on a new one.
    pub(crate) async fn find(&self, is_direct: bool, table: &Table, query: &Query) -> Result<Found, StoreError> {
        let archive = if is_direct { &self.sources.reading.direct } else { &self.sources.reading.pool };
        let (archive, table, query) = (Arc::clone(archive), table.clone(), query.clone());
        self.query(ARCHIVE, &self.archive_questions, async move { archive.find(&table, &query).await }).await
    }

    /// The dataset of this name as it is now.
    pub(crate) async fn dataset(&self, id: &DatasetId) -> Result<Option<Dataset>, StoreError> {
        self.ask(DATASETS, ANSWER_TIMEOUT, self.sources.reading.datasets.describe(id)).await
    }

    pub(crate) async fn datasets(&self) -> Result<Vec<Dataset>, StoreError> {
        self.ask(DATASETS, ANSWER_TIMEOUT, self.sources.reading.datasets.list()).await
    }

    /// Asks in turn. A question that nobody waits for any more keeps its place until the store is done with it, since a
    /// store may go on with what nobody wants.
    async fn query<T: Send + 'static>(
        &self,
        store: &'static str,
        places: &Arc<Semaphore>,
        answer: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = async {
            let failed = |error: &dyn Error| StoreError::new(store, error);
            let place = Arc::clone(places).acquire_owned().await.map_err(|error| failed(&error))?;
            let answer = tokio::spawn(async move {
                let _place = place;
                answer.await
            });
            answer.await.map_err(|error| failed(&error))?
        };
        self.ask(store, ANSWER_TIMEOUT, answer).await
    }

    async fn ask<T>(
        &self,
        store: &'static str,
        within: Duration,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let late = |_| Err(StoreError::new(store, format_args!("no answer within {within:?}")));
        let answer = timeout(within, answer).await.unwrap_or_else(late);
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Err(error) if silent.insert(store) => {
                tracing::warn!(store, error = %error.problem, "a store does not answer");
            }
            Ok(_) if silent.remove(store) => tracing::info!(store, "a store answers again"),
            _ => {}
        }
        answer
    }
}

/// 503: nothing is shown in place of what can't be read. The driver's words are for the log, not for the public.
pub(crate) fn unavailable(error: &StoreError) -> Problem {
    Problem::plain(Status::ServiceUnavailable, unavailable_detail(error))
}

pub(crate) fn unavailable_detail(error: &StoreError) -> String {
    format!("the {} can't be read now; try again", error.store)
}
