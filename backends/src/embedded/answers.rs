//! Answers kept in this process, with the version of the tallies in `count.db`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rusqlite::params;
use votes::{Answers, Facts, KeptAnswer, Lookup, Store, StoreError};

use super::{database::Readers, writer::Tasks};

/// The most answers.
const MOST: usize = 1_000;

pub(super) struct EmbeddedAnswers {
    count: Arc<Readers>,
    datasets: Arc<Readers>,
    writer: Tasks,
    /// The most bytes of all answers.
    bytes: usize,
    kept: Mutex<HashMap<String, (KeptAnswer, Instant)>>,
}

impl EmbeddedAnswers {
    pub(super) fn new(count: Arc<Readers>, datasets: Arc<Readers>, writer: Tasks, bytes: usize) -> Self {
        Self { count, datasets, writer, bytes, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, (KeptAnswer, Instant)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for EmbeddedAnswers {
    async fn check(&self) -> Result<Facts, StoreError> {
        let kept = self.kept();
        let bytes: usize = kept.values().map(|(answer, _)| answer.body.len()).sum();
        Ok(Facts::from([("answers", kept.len().to_string()), ("bytes", bytes.to_string())]))
    }
}

#[async_trait]
impl Answers for EmbeddedAnswers {
    async fn look_up(&self, question: &str) -> Result<Lookup, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = 'version'";
        let version = self.count.read(|db| db.prepare_cached(sql)?.query_row([], |row| row.get(0))).await?;
        let kept = self.kept();
        let kept = kept.get(question).filter(|(_, until)| Instant::now() < *until);
        Ok(Lookup { version, kept: kept.map(|(answer, _)| answer.clone()) })
    }

    async fn keep(&self, question: &str, answer: &KeptAnswer, for_time: Duration) -> Result<(), StoreError> {
        let size = |question: &str, answer: &KeptAnswer| question.len() + answer.body.len();
        let added = size(question, answer);
        if added > self.bytes {
            return Ok(());
        }
        let now = Instant::now();
        let mut kept = self.kept();
        kept.remove(question);
        kept.retain(|_, (_, until)| *until > now);
        let mut bytes: usize = kept.iter().map(|(question, (answer, _))| size(question, answer)).sum();
        while bytes + added > self.bytes || kept.len() >= MOST {
            let first = kept.iter().min_by_key(|(_, (_, until))| *until).map(|(question, _)| question.clone());
            let Some((question, (answer, _))) = first.and_then(|question| kept.remove_entry(&question)) else { break };
            bytes -= size(&question, &answer);
        }
        kept.insert(question.to_owned(), (answer.clone(), now + for_time));
        Ok(())
    }

    async fn prolong(&self, question: &str, for_time: Duration) -> Result<(), StoreError> {
        if let Some((_, until)) = self.kept().get_mut(question).filter(|(_, until)| Instant::now() < *until) {
            *until = Instant::now() + for_time;
        }
        Ok(())
    }

    async fn forget(&self) -> Result<u64, StoreError> {
        Ok(self.kept().drain().count() as u64)
    }

    async fn note_popular(&self, questions: &[(String, f64)]) -> Result<(), StoreError> {
        let questions = questions.to_vec();
        self.writer
            .run(move |db| {
                db.execute("DELETE FROM popular", [])?;
                let mut note = db.prepare_cached("INSERT OR REPLACE INTO popular VALUES (?1, ?2)")?;
                questions.iter().try_for_each(|(question, weight)| note.execute(params![question, weight]).map(drop))
            })
            .await
    }

    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError> {
        let sql = "SELECT question, weight FROM popular ORDER BY weight DESC, question";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.datasets.read(move |db| db.prepare(sql)?.query_map([], read)?.collect()).await
    }
}
