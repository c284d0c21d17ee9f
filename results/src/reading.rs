//! The three ways to an answer, to be compared: a new connection for each question, one of a pool, or what is kept of answers.
//!
//! A kept answer is as good as a new one while the version of what it depends on stands: the tallies' for votes, its own for a dataset.
//! The version is read before the archive is, so an answer may be newer than the version it is kept under, never older. While votes
//! are counted their version moves many times a second; who can do with an answer of some seconds ago says so with `max_age`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use rocket::{State, post, serde::json::Json};
use serde::Serialize;
use service::http::Problem;
use tokio::{sync::OnceCell, time::interval};
use utoipa::ToSchema;
use votes::{
    Answers, DatasetId, Found, KeptAnswer, Refusal, StoreError, Table, UnixMillis,
    query::{Query, Schema, pairs},
};

use crate::{
    access::Allowed,
    answer::{Answer, Rows, first_count, members},
    popularity::Popularity,
    question::{Format, Question, Via},
    stores::{Stores, unavailable},
};

/// The largest answer that is kept, in bytes.
const MAX_ANSWER: usize = 8 << 20;

/// The longest question whose answer is kept, in bytes.
const MAX_QUESTION: usize = 4_096;

/// How many popular questions are noted, and how often.
const POPULAR: usize = 50;
const NOTED_EVERY: Duration = Duration::from_secs(10);

/// What answers questions.
#[derive(Clone)]
pub(crate) struct Reader(Arc<Shared>);

struct Shared {
    stores: Arc<Stores>,
    answers: Arc<dyn Answers>,
    popularity: Mutex<Popularity>,
    /// Answers that are being read, by their question and the version that was read before.
    loading: Mutex<Loading>,
    /// Raised when all answers are forgotten: what began to be read before is not kept any more.
    forgotten: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

type Loading = HashMap<(String, u64), Arc<OnceCell<Loaded>>>;

/// What was read: the answer's members, or why there are none.
#[derive(Clone)]
enum Loaded {
    Answer(Arc<KeptAnswer>),
    TooMuch(usize),
    Failed(StoreError),
}

/// What was kept of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Hit,
    Stale,
    Miss,
    Bypassed,
    Degraded,
}

impl Cache {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypassed => "bypassed",
            Self::Degraded => "degraded",
        }
    }
}

impl Reader {
    pub(crate) fn new(stores: Arc<Stores>, answers: Arc<dyn Answers>) -> Self {
        describe_counter!("ovation_cache_questions_total", "Questions by what was kept of their answer");
        describe_gauge!(
            "ovation_cache_hit_ratio",
            "Of the questions that a kept answer could serve, the share that one did, since the start"
        );
        describe_counter!("ovation_cache_warmed_total", "Answers of popular questions that were read at the start");
        describe_gauge!(
            "ovation_cache_popular_questions",
            "Questions that were noted, so that the next start begins with them"
        );
        describe_counter!("ovation_cache_failures_total", "What the place of kept answers failed to do");
        describe_counter!("ovation_cache_forgotten_total", "Kept answers that somebody had forgotten");
        Self(Arc::new(Shared {
            stores,
            answers,
            popularity: Mutex::default(),
            loading: Mutex::default(),
            forgotten: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }))
    }

    /// Answers a question, in its way and its form.
    pub(crate) async fn answer(&self, question: Question) -> Result<Answer, Problem> {
        if question.manner.format != Format::Json {
            return self.stream(question).await;
        }
        let (loaded, cache) = match question.manner.via {
            Via::Cache => self.through_cache(&question).await,
            via => (self.load(&question, via, 0).await, Cache::Bypassed),
        };
        self.count(cache);
        let answer = match loaded {
            Loaded::Answer(answer) => answer,
            Loaded::TooMuch(most) => return Err(too_much(&question.table, most).into()),
            Loaded::Failed(error) => return Err(unavailable(&error)),
        };
        let age = UnixMillis::now().0.saturating_sub(answer.read_at.0).max(0);
        let (via, cache) = (question.manner.via.as_str(), cache.as_str());
        let served = format!(",\"served\":{{\"via\":\"{via}\",\"cache\":\"{cache}\",\"age_ms\":{age}}}}}");
        Ok(Answer::Json([b"{", answer.body.as_slice(), served.as_bytes()].concat()))
    }

    async fn stream(&self, question: Question) -> Result<Answer, Problem> {
        let Question { table, schema, mut query, manner } = question;
        let wanted = manner.has_limit.then_some(query.count);
        query.count = first_count(wanted);
        let via = if manner.via == Via::Cache { Via::Pool } else { manner.via };
        let first = match self.0.stores.find(via == Via::Direct, &table, &query).await {
            Ok(Found::Page(page)) => page,
            Ok(Found::TooMuch(most)) => return Err(too_much(&table, most).into()),
            Err(error) => return Err(unavailable(&error)),
        };
        self.count(Cache::Bypassed);
        let (stores, total, format) = (Arc::clone(&self.0.stores), first.total, manner.format);
        let most = wanted.unwrap_or(usize::MAX);
        let rows = Rows { stores, table, schema, query, via, format, most }.from(first).boxed();
        Ok(Answer::Rows { format, via, total, rows })
    }

    async fn through_cache(&self, question: &Question) -> (Loaded, Cache) {
        let key = key(&question.table, &question.schema, &question.query);
        if key.len() > MAX_QUESTION {
            return (self.load(question, Via::Pool, 0).await, Cache::Bypassed);
        }
        let keep_for = self.popularity().ask(&key, Instant::now());
        let Ok(found) = or_counted("look_up", self.0.answers.look_up(&key).await) else {
            return (self.load(question, Via::Pool, 0).await, Cache::Degraded);
        };
        let version = match &question.table {
            Table::Votes => found.version,
            Table::Dataset(dataset) => dataset.version,
        };
        if let Some(kept) = found.kept {
            let age = UnixMillis::now().0.saturating_sub(kept.read_at.0);
            let is_current = kept.version == version;
            if is_current || age < question.manner.max_age {
                self.prolong(key, keep_for);
                let cache = if is_current { Cache::Hit } else { Cache::Stale };
                return (Loaded::Answer(Arc::new(kept)), cache);
            }
        }
        (self.load_once(question, key, version, keep_for).await, Cache::Miss)
    }

    /// Those who ask the same at the same version wait for one answer.
    async fn load_once(&self, question: &Question, key: String, version: u64, keep_for: Duration) -> Loaded {
        let flight = (key, version);
        let cell = {
            let mut loading = self.loading();
            // Nobody waits any more for what was given up.
            loading.retain(|_, cell| Arc::strong_count(cell) > 1);
            Arc::clone(loading.entry(flight.clone()).or_default())
        };
        let load = async {
            let forgotten = self.0.forgotten.load(Ordering::SeqCst);
            let loaded = self.load(question, Via::Pool, version).await;
            let landing = Landing { reader: self.clone(), flight, cell: Arc::clone(&cell) };
            if let Loaded::Answer(answer) = &loaded
                && answer.body.len() <= MAX_ANSWER
                && forgotten == self.0.forgotten.load(Ordering::SeqCst)
            {
                landing.keep(Arc::clone(answer), keep_for);
            }
            loaded
        };
        cell.get_or_init(|| load).await.clone()
    }

    async fn load(&self, question: &Question, via: Via, version: u64) -> Loaded {
        let Question { table, schema, query, .. } = question;
        let read_at = UnixMillis::now();
        match self.0.stores.find(via == Via::Direct, table, query).await {
            Ok(Found::Page(page)) => {
                let body = members(table, schema, query, &page);
                Loaded::Answer(Arc::new(KeptAnswer { version, read_at, body }))
            }
            Ok(Found::TooMuch(most)) => Loaded::TooMuch(most),
            Err(error) => Loaded::Failed(error),
        }
    }

    fn prolong(&self, question: String, for_time: Duration) {
        let now = Instant::now();
        {
            let mut popularity = self.popularity();
            if !popularity.is_due(&question, for_time, now) {
                return;
            }
            popularity.keep(&question, for_time, now);
        }
        let reader = self.clone();
        tokio::spawn(async move {
            let prolonged = reader.0.answers.prolong(&question, for_time).await;
            let _ = or_counted("prolong", prolonged);
        });
    }

    /// Reads the answers of what was popular before this start; then notes now and then what is.
    pub(crate) async fn keep_popular(self) {
        let popular = or_counted("popular", self.0.answers.popular().await).unwrap_or_default();
        for (key, weight) in popular {
            self.popularity().add(&key, weight, Instant::now());
            if self.warm(&key).await {
                counter!("ovation_cache_warmed_total").increment(1);
            }
        }
        let mut noted = Vec::new();
        let mut ticks = interval(NOTED_EVERY);
        loop {
            ticks.tick().await;
            let leaders = self.popularity().leaders(POPULAR, Instant::now());
            if !leaders.is_empty()
                && leaders != noted
                && or_counted("note", self.0.answers.note_popular(&leaders).await).is_ok()
            {
                gauge!("ovation_cache_popular_questions").set(leaders.len() as f64);
                noted = leaders;
            }
        }
    }

    /// Sees to it that the answer to a question is kept. Whether it had to be read.
    async fn warm(&self, key: &str) -> bool {
        let Some(question) = self.question_of(key).await else { return false };
        let (loaded, cache) = self.through_cache(&question).await;
        cache == Cache::Miss && matches!(loaded, Loaded::Answer(_))
    }

    /// The question that was noted so, if it still can be asked.
    async fn question_of(&self, key: &str) -> Option<Question> {
        let (table, query) = key.split_once('?')?;
        let table = match table.strip_prefix("datasets/") {
            None => Table::Votes,
            Some(id) => {
                let id: DatasetId = id.parse().ok()?;
                Table::Dataset(Arc::new(self.0.stores.dataset(&id).await.ok()??))
            }
        };
        let schema = table.schema();
        let parameters = pairs(query);
        let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let query = Query::parse(&schema, parameters).ok()?;
        Some(Question { table, schema, query, manner: crate::question::Manner::plain() })
    }

    fn count(&self, cache: Cache) {
        counter!("ovation_cache_questions_total", "cache" => cache.as_str()).increment(1);
        match cache {
            Cache::Hit | Cache::Stale => self.0.hits.fetch_add(1, Ordering::Relaxed),
            Cache::Miss => self.0.misses.fetch_add(1, Ordering::Relaxed),
            Cache::Bypassed | Cache::Degraded => return,
        };
        let (hits, misses) = (self.0.hits.load(Ordering::Relaxed), self.0.misses.load(Ordering::Relaxed));
        gauge!("ovation_cache_hit_ratio").set(hits as f64 / (hits + misses) as f64);
    }

    fn popularity(&self) -> MutexGuard<'_, Popularity> {
        self.0.popularity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loading(&self) -> MutexGuard<'_, Loading> {
        self.0.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that was read. While this is there, who asks the same gets it.
struct Landing {
    reader: Reader,
    flight: (String, u64),
    cell: Arc<OnceCell<Loaded>>,
}

impl Landing {
    /// Keeps the answer. Nobody waits for that.
    fn keep(self, answer: Arc<KeptAnswer>, for_time: Duration) {
        let question = self.flight.0.clone();
        self.reader.popularity().keep(&question, for_time, Instant::now());
        tokio::spawn(async move {
            let kept = self.reader.0.answers.keep(&question, &answer, for_time).await;
            let _ = or_counted("keep", kept);
        });
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut loading = self.reader.loading();
        if loading.get(&self.flight).is_some_and(|known| Arc::ptr_eq(known, &self.cell)) {
            loading.remove(&self.flight);
        }
    }
}

/// Counts what the place of kept answers failed to do.
fn or_counted<T>(what: &'static str, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
    if let Err(error) = &outcome {
        tracing::debug!(what, %error, "kept answers are away");
        counter!("ovation_cache_failures_total", "operation" => what).increment(1);
    }
    outcome
}

/// What an answer is kept under: the table, and the question's normal form.
fn key(table: &Table, schema: &Schema, query: &Query) -> String {
    let query = query.normal_form(schema);
    match table {
        Table::Votes => format!("votes?{query}"),
        Table::Dataset(dataset) => format!("datasets/{}?{query}", dataset.id),
    }
}

/// 422: what can be done.
fn too_much(table: &Table, most: usize) -> Refusal {
    let indexed = match table {
        Table::Votes => {
            "contest with accepted_at, contest with name where MongoDB has the book, and partition with offset"
                .to_owned()
        }
        Table::Dataset(dataset) if dataset.indexed().is_empty() => {
            "none of its columns until all rows are loaded".to_owned()
        }
        Table::Dataset(dataset) => format!("its first {} columns", dataset.indexed().len()),
    };
    let detail = format!(
        "this question would look at more than {most} rows; narrow it by what has an index, which is {indexed}, or say allow_scan=true"
    );
    Refusal::field("allow_scan", detail)
}

/// Answers that were forgotten.
#[derive(Serialize, ToSchema)]
pub(crate) struct Forgotten {
    /// How many.
    forgotten: u64,
}

/// Forgets all kept answers.
///
/// Answers are never older than what they depend on without saying so, so this is needed only after somebody changed the book or a
/// dataset by hand.
#[utoipa::path(
    tag = "votes",
    responses(
        (status = 200, description = "They are forgotten", body = Forgotten),
        (status = 401, description = "It asks for a token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The place of kept answers can't be reached now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = []), ()),
)]
#[post("/v1/cache/invalidate")]
pub(crate) async fn invalidate(_allowed: Allowed, reader: &State<Reader>) -> Result<Json<Forgotten>, Problem> {
    let reader: &Reader = reader;
    reader.0.forgotten.fetch_add(1, Ordering::SeqCst);
    let forgotten = or_counted("forget", reader.0.answers.forget().await).map_err(|error| unavailable(&error))?;
    counter!("ovation_cache_forgotten_total").increment(forgotten);
    Ok(Json(Forgotten { forgotten }))
}
