//! One measurement: readers who ask in one way, and what is changed meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use hyper::{StatusCode, Uri};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use service::{program::Failure, token::ReadToken};
use tokio::{
    task::JoinSet,
    time::{interval_at, sleep},
};
use votes::{Dataset, Datasets};

use super::{
    StudyArgs,
    ballots::{Ballots, Kept, Wrong},
    processes::{Process, Usage, Watch},
};
use crate::{
    client,
    exposition::Exposition,
    flood::{http::Http, wire::Wire},
    zipf::Zipf,
};

/// A reader does not wait longer for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The ways to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    Direct,
    Pool,
    Cache,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Direct, Self::Pool, Self::Cache];

    /// As a question says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pool => "pool",
            Self::Cache => "cache",
        }
    }
}

/// What is asked, and of whom.
pub(super) struct Study {
    pub(super) args: StudyArgs,
    pub(super) token: Option<ReadToken>,
    pub(super) ballots: Ballots,
    pub(super) popularity: Zipf,
    pub(super) datasets: Arc<dyn Datasets>,
    pub(super) dataset: Dataset,
    pub(super) processes: Vec<Process>,
    /// How many ballots there are for sure, and how many there may be.
    pub(super) loaded: AtomicUsize,
    pub(super) begun: AtomicUsize,
}

/// What was measured once.
#[derive(Debug)]
pub(super) struct Measurement {
    pub(super) way: Way,
    /// Counted from 1.
    pub(super) round: u32,
    /// From the first question to the last answer.
    pub(super) time: Duration,
    /// The times of right answers in microseconds, from the question to its last byte.
    pub(super) micros: Histogram<u32>,
    /// What answers say of the cache.
    pub(super) kept: BTreeMap<Kept, u64>,
    /// Questions that were not answered, and why the first was not.
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
    /// On the readers' sockets.
    pub(super) bytes: u64,
    /// Hits and misses by the service's own count; `None` if it was not asked.
    pub(super) told: Option<(f64, f64)>,
    pub(super) usage: Vec<Usage>,
}

impl Measurement {
    pub(super) fn answers(&self) -> u64 {
        self.micros.len()
    }

    /// A quantile of the times, in milliseconds.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.micros.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Which measurement it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) way: Way,
    pub(super) round: u32,
    /// How often this way had its turn before. Each way's readers draw the same in the same turn.
    pub(super) number: u32,
}

/// What one reader had.
struct Answered {
    micros: Histogram<u32>,
    kept: BTreeMap<Kept, u64>,
    failed: u64,
    failure: Option<String>,
    last: Instant,
}

impl Study {
    /// Asks every question once, so that no answer is measured that would be wrong, nor a server that has just begun.
    pub(super) async fn rehearse(&self, mut step: impl FnMut()) -> Result<(), Failure> {
        let mut http = self.connection(Arc::default());
        for question in 0..self.args.questions as usize {
            if let Err(failure) = self.ask(&mut http, Way::Pool, question).await? {
                return Err(format!("no answer to {}: {failure}", self.path(Way::Pool, question)).into());
            }
            step();
        }
        Ok(())
    }

    pub(super) async fn measure(self: &Arc<Self>, turn: Turn) -> Result<Measurement, Failure> {
        let (wire, told_before) = (Arc::new(Wire::default()), self.told().await?);
        let watch = Watch::start(&self.processes);
        let begun = Instant::now();
        let mut readers = JoinSet::new();
        for reader in 0..self.args.users {
            readers.spawn(Arc::clone(self).read(turn, reader, begun, Arc::clone(&wire)));
        }
        let changes = tokio::spawn(Arc::clone(self).change(turn, begun));
        let mut all = Answered::none(begun);
        while let Some(answered) = readers.join_next().await {
            // The first wrong answer ends it; the other readers end with the set.
            all.add(&answered??);
        }
        changes.await??;
        let usage = watch.end().await;
        let told = told_before.zip(self.told().await?).map(|(before, after)| (after.0 - before.0, after.1 - before.1));
        if all.micros.is_empty() {
            let failure = all.failure.unwrap_or_else(|| "there was no time for one".to_owned());
            return Err(format!("no question via {} was answered: {failure}", turn.way.name()).into());
        }
        Ok(Measurement {
            way: turn.way,
            round: turn.round,
            time: all.last - begun,
            micros: all.micros,
            kept: all.kept,
            failed: all.failed,
            failure: all.failure,
            bytes: wire.received(),
            told,
            usage,
        })
    }

    /// A reader, who asks, waits for the answer, and pauses before the next question.
    async fn read(
        self: Arc<Self>,
        turn: Turn,
        reader: u32,
        begun: Instant,
        wire: Arc<Wire>,
    ) -> Result<Answered, Wrong> {
        let Turn { way, number, .. } = turn;
        let seed = self.args.seed ^ (u64::from(number) << 32) ^ u64::from(reader);
        let mut random = SmallRng::seed_from_u64(seed);
        let mut answered = Answered::none(begun);
        let mut http = self.connection(wire);
        // Readers don't come in step.
        sleep(self.args.pause.mul_f64(random.random())).await;
        while begun.elapsed() < self.args.seconds {
            let question = self.popularity.draw(&mut random);
            let asked = Instant::now();
            match self.ask(&mut http, way, question).await? {
                Ok((kept, time)) => {
                    // At most what PATIENCE is, which a histogram that resizes can hold.
                    let _ = answered.micros.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
                    *answered.kept.entry(kept).or_default() += 1;
                    answered.last = asked + time;
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

    /// Asks, and checks the answer; how long it took, or why there was none.
    async fn ask(&self, http: &mut Http, way: Way, question: usize) -> Result<Result<(Kept, Duration), String>, Wrong> {
        let (path, loaded, asked) = (self.path(way, question), self.loaded.load(Ordering::SeqCst), Instant::now());
        let (status, body) = match http.get(&path).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure)),
        };
        let time = asked.elapsed();
        if status != StatusCode::OK {
            return Ok(Err(format!("{status}: {}", String::from_utf8_lossy(&body))));
        }
        let loaded = loaded..=self.begun.load(Ordering::SeqCst);
        Ok(Ok((self.ballots.check(question, way.name(), loaded, &body)?, time)))
    }

    fn path(&self, way: Way, question: usize) -> String {
        format!("/v1/datasets/{}?{}&via={}", self.dataset.id, self.ballots.query(question), way.name())
    }

    fn connection(&self, wire: Arc<Wire>) -> Http {
        Http::to_get(&self.args.url, self.token.as_ref(), PATIENCE, wire)
    }

    /// Changes something now and then: in turn a ballot is added, after which no kept answer is current, and all kept answers are
    /// forgotten.
    async fn change(self: Arc<Self>, turn: Turn, begun: Instant) -> Result<(), Failure> {
        let (every, changes) = (self.args.change_every, self.args.changes());
        let mut ticks = interval_at((begun + every / 2).into(), every);
        for change in 0..changes {
            ticks.tick().await;
            if (turn.number * changes + change).is_multiple_of(2) {
                self.add_ballot().await?;
            } else {
                #[derive(Deserialize)]
                struct Forgotten {}
                let url = self.args.url.to_string();
                let _: Forgotten =
                    client::post_as(self.token.as_ref(), &url, "/v1/cache/invalidate", String::new()).await?;
            }
        }
        Ok(())
    }

    async fn add_ballot(&self) -> Result<(), Failure> {
        let ballot = self.begun.fetch_add(1, Ordering::SeqCst);
        if !self.datasets.load(&self.dataset, vec![self.ballots.row(ballot)]).await? {
            return Err(format!("the dataset {} is gone", self.dataset.id).into());
        }
        self.loaded.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    /// The service's own count of hits and misses, if it can be asked.
    async fn told(&self) -> Result<Option<(f64, f64)>, Failure> {
        let Some(admin) = self.args.admin() else { return Ok(None) };
        let (_, text) = client::get_bytes(admin, "/metrics").await?;
        let told = Exposition::parse(&String::from_utf8_lossy(&text));
        let of = |cache| told.sum("ovation_cache_questions_total", Some(("cache", cache))).unwrap_or(0.0);
        Ok(Some((of("hit"), of("miss"))))
    }
}

impl Answered {
    fn none(begun: Instant) -> Self {
        let micros = Histogram::new(3).expect("three digits are within a histogram's range");
        Self { micros, kept: BTreeMap::new(), failed: 0, failure: None, last: begun }
    }

    fn add(&mut self, other: &Self) {
        self.micros.add(&other.micros).expect("a histogram that resizes takes every other");
        for (kept, answers) in &other.kept {
            *self.kept.entry(*kept).or_default() += answers;
        }
        self.failed += other.failed;
        self.failure = self.failure.take().or_else(|| other.failure.clone());
        self.last = self.last.max(other.last);
    }
}

/// Where the study asks, as it stands in a URL: `host:port`.
pub(super) fn address_of(url: &Uri) -> String {
    format!("{}:{}", url.host().unwrap_or_default(), url.port_u16().unwrap_or(80))
}
