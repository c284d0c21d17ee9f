//! Makes one measurement: readers send queries in one way, while the data changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use client::http::post_as;
use hdrhistogram::Histogram;
use hyper::{StatusCode, Uri};
use query::{Dataset, Datasets};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::Deserialize;
use service::{program::Failure, token::ReadToken};
use tokio::{
    task::JoinSet,
    time::{interval_at, sleep},
};

use super::{
    args::StudyArgs,
    ballots::{Ballots, CacheStatus, WrongAnswer},
    processes::{Process, Sampler, Usage},
    turns::{Turn, Way},
};
use crate::{admin, connections::ConnectionGroup, http::Http, rounds::Measured, zipf::Zipf};

/// The longest time that a reader waits for an answer.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the benchmark.
pub(super) struct Study {
    pub(super) args: StudyArgs,
    pub(super) token: Option<ReadToken>,
    pub(super) ballots: Ballots,
    pub(super) popularity: Zipf,
    pub(super) datasets: Arc<dyn Datasets>,
    pub(super) dataset: Dataset,
    pub(super) processes: Vec<Process>,
    /// The number of ballots that are certainly in the dataset.
    pub(super) loaded: AtomicUsize,
    /// The number of ballots that may be in the dataset: those whose loading has begun.
    pub(super) begun: AtomicUsize,
}

/// The result of one measurement.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) way: Way,
    /// The number of the round, from 1.
    pub(super) round: u32,
    /// The time from the first query to the last answer.
    pub(super) time: Duration,
    /// The response times in microseconds, from the query to the last byte of the answer.
    pub(super) micros: Histogram<u32>,
    /// The number of answers by cache status.
    pub(super) cache: BTreeMap<CacheStatus, u64>,
    /// The number of queries without an answer.
    pub(super) failed: u64,
    /// Why the first of these queries had no answer.
    pub(super) failure: Option<String>,
    /// The number of bytes that the sockets of the readers received.
    pub(super) bytes: u64,
    /// Hits and misses according to the metrics of the service; `None` if its admin port is not reachable.
    pub(super) metrics: Option<(f64, f64)>,
    pub(super) usage: Vec<Usage>,
}

impl Measurement {
    pub(super) fn answers(&self) -> u64 {
        self.micros.len()
    }
}

impl Measured for Measurement {
    type Subject = Way;

    fn subject(&self) -> Way {
        self.way
    }

    fn round(&self) -> u32 {
        self.round
    }

    fn micros(&self) -> &Histogram<u32> {
        &self.micros
    }
}

/// The result of one reader.
struct ReaderResult {
    micros: Histogram<u32>,
    cache: BTreeMap<CacheStatus, u64>,
    failed: u64,
    failure: Option<String>,
    last: Instant,
}

impl Study {
    /// Sends every query once before the measurements. This warms up the servers, and finds wrong answers early. `step`
    /// is called after each answer.
    pub(super) async fn warm_up(&self, mut step: impl FnMut()) -> Result<(), Failure> {
        let mut http = self.connection(Arc::default());
        for query in 0..self.args.queries as usize {
            if let Err(failure) = self.send(&mut http, Way::Pool, query).await? {
                return Err(format!("no answer to {}: {failure}", self.path(Way::Pool, query)).into());
            }
            step();
        }
        Ok(())
    }

    pub(super) async fn measure(self: &Arc<Self>, turn: Turn) -> Result<Measurement, Failure> {
        let (group, metrics_before) = (Arc::new(ConnectionGroup::default()), self.cache_metrics().await?);
        let sampler = Sampler::start(&self.processes);
        let begun = Instant::now();
        let mut readers = JoinSet::new();
        for reader in 0..self.args.users {
            readers.spawn(Arc::clone(self).run_reader(turn, reader, begun, Arc::clone(&group)));
        }
        let changes = tokio::spawn(Arc::clone(self).make_changes(turn, begun));
        let mut all = ReaderResult::none(begun);
        while let Some(answered) = readers.join_next().await {
            // The first wrong answer ends the study. Dropping the set ends the other readers.
            all.add(&answered??);
        }
        changes.await??;
        let usage = sampler.end().await;
        let metrics = metrics_before
            .zip(self.cache_metrics().await?)
            .map(|(before, after)| (after.0 - before.0, after.1 - before.1));
        if all.micros.is_empty() {
            let failure = all.failure.unwrap_or_else(|| "there was no time for a query".to_owned());
            return Err(format!("no query via {} was answered: {failure}", turn.way.name()).into());
        }
        Ok(Measurement {
            way: turn.way,
            round: turn.round,
            time: all.last - begun,
            micros: all.micros,
            cache: all.cache,
            failed: all.failed,
            failure: all.failure,
            bytes: group.received(),
            metrics,
            usage,
        })
    }

    /// Runs a reader: it sends a query, waits for the answer, and pauses before the next query.
    async fn run_reader(
        self: Arc<Self>,
        turn: Turn,
        reader: u32,
        begun: Instant,
        group: Arc<ConnectionGroup>,
    ) -> Result<ReaderResult, WrongAnswer> {
        let Turn { way, number, .. } = turn;
        let seed = self.args.seed ^ (u64::from(number) << 32) ^ u64::from(reader);
        let mut random = SmallRng::seed_from_u64(seed);
        let mut answered = ReaderResult::none(begun);
        let mut http = self.connection(group);
        // Start the readers at different times.
        sleep(self.args.pause.mul_f64(random.random())).await;
        while begun.elapsed() < self.args.seconds {
            let query = self.popularity.draw(&mut random);
            let sent = Instant::now();
            match self.send(&mut http, way, query).await? {
                Ok((cache, time)) => {
                    // The time is at most RESPONSE_TIMEOUT, which a histogram that resizes can hold.
                    let _ = answered.micros.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
                    *answered.cache.entry(cache).or_default() += 1;
                    answered.last = sent + time;
                }
                Err(failure) => {
                    answered.failed += 1;
                    answered.failure.get_or_insert(failure);
                }
            }
            sleep(self.args.pause).await;
        }
        Ok(answered)
    }

    /// Sends a query and checks the answer. Returns the cache status and the response time, or why there was no answer.
    ///
    /// # Errors
    /// If the answer is wrong.
    async fn send(
        &self,
        http: &mut Http,
        way: Way,
        query: usize,
    ) -> Result<Result<(CacheStatus, Duration), String>, WrongAnswer> {
        let (path, loaded, sent) = (self.path(way, query), self.loaded.load(Ordering::SeqCst), Instant::now());
        let (status, body) = match http.get(&path).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure)),
        };
        let time = sent.elapsed();
        if status != StatusCode::OK {
            return Ok(Err(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        let loaded = loaded..=self.begun.load(Ordering::SeqCst);
        Ok(Ok((self.ballots.check(query, way.name(), loaded, &body)?, time)))
    }

    fn path(&self, way: Way, query: usize) -> String {
        format!("/v1/datasets/{}?{}&via={}", self.dataset.id, self.ballots.query(query), way.name())
    }

    fn connection(&self, group: Arc<ConnectionGroup>) -> Http {
        Http::for_get(&self.args.url, self.token.as_ref(), RESPONSE_TIMEOUT, group)
    }

    /// Makes a change at an interval. Alternately, it adds a ballot, which makes all cached responses stale, and clears
    /// all cached responses.
    async fn make_changes(self: Arc<Self>, turn: Turn, begun: Instant) -> Result<(), Failure> {
        let (every, changes) = (self.args.change_every, self.args.changes());
        let mut ticks = interval_at((begun + every / 2).into(), every);
        for change in 0..changes {
            ticks.tick().await;
            if (turn.number * changes + change).is_multiple_of(2) {
                self.add_ballot().await?;
            } else {
                #[derive(Deserialize)]
                struct Cleared {}
                let url = self.args.url.to_string();
                let authorization = self.token.as_ref().map(ReadToken::authorization);
                let _: Cleared = post_as(authorization.as_deref(), &url, "/v1/cache/invalidate", String::new()).await?;
            }
        }
        Ok(())
    }

    async fn add_ballot(&self) -> Result<(), Failure> {
        let ballot = self.begun.fetch_add(1, Ordering::SeqCst);
        if !self.datasets.load(&self.dataset, vec![self.ballots.row(ballot)]).await? {
            return Err(format!("the dataset {} was removed meanwhile", self.dataset.id).into());
        }
        self.loaded.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// Returns the numbers of hits and misses since the start of the service, if its admin port is reachable.
    async fn cache_metrics(&self) -> Result<Option<(f64, f64)>, Failure> {
        let Some(admin) = self.args.admin() else { return Ok(None) };
        let (_, metrics) = admin::metrics(admin).await?;
        let count = |cache| metrics.sum("ovation_cache_queries_total", Some(("cache", cache))).unwrap_or(0.0);
        Ok(Some((count("hit"), count("miss"))))
    }
}

impl ReaderResult {
    fn none(begun: Instant) -> Self {
        let micros = Histogram::new(3).expect("three digits are within a histogram's range");
        Self { micros, cache: BTreeMap::new(), failed: 0, failure: None, last: begun }
    }

    fn add(&mut self, other: &Self) {
        self.micros.add(&other.micros).expect("a histogram that resizes takes every other");
        for (cache, answers) in &other.cache {
            *self.cache.entry(*cache).or_default() += answers;
        }
        self.failed += other.failed;
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        self.last = self.last.max(other.last);
    }
}

/// Returns the address of a URL: `host:port`.
pub(super) fn address_of(url: &Uri) -> String {
    format!("{}:{}", url.host().unwrap_or_default(), url.port_u16().unwrap_or(80))
}
