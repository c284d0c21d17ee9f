//! Answers kept beside the tallies.
//!
//! They must not cost the tallies anything: all of their keys expire, their bytes are bounded, and where the server's memory is nearly
//! full they give theirs back. They have a connection of their own, which does not wait long: while the server does not answer,
//! whoever asks hears so at once.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{InfoDict, RedisError, RedisResult, Script, cmd, pipe};
use votes::{Answers, Facts, KeptAnswer, Lookup, Store, StoreError, UnixMillis};

use super::{address::Address, connection::Connection, keys::Keys};
use crate::open::NotOpen;

static KEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("keep.lua")));

/// How long connecting and an answer may take: asking the archive takes little more.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long nobody asks a server that did not answer.
const REST: Duration = Duration::from_secs(1);

/// The most answers.
const MOST: usize = 1_000;

/// How long the list of answers is kept after the last one came: longer than any answer.
const LIST_KEPT: Duration = Duration::from_hours(2);

/// How long popular questions are remembered.
const POPULAR_KEPT: Duration = Duration::from_hours(24);

/// The share of the server's memory that may be used, with what others use, for an answer to be kept.
const FULL: f64 = 0.9;

/// How long a look at the server's memory is good for.
const MEMORY_KNOWN: Duration = Duration::from_secs(1);

/// The answers on a Redis.
pub(crate) struct RedisAnswers {
    connection: Connection,
    keys: Keys,
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until when nobody asks.
    rests_until: Option<Instant>,
    /// Whether the server's memory was nearly full, and when that was.
    memory: Option<(Instant, bool)>,
}

impl RedisAnswers {
    /// Answers on the server of a URL, at most so many bytes. It need not be there.
    pub(crate) fn new(url: &str, bytes: usize) -> Result<Self, NotOpen> {
        let address = Address::parse(url).map_err(NotOpen::BadUrl)?;
        let connection = Connection::with_patience(address.server, address.tls, PATIENCE, PATIENCE);
        let connection = connection.map_err(|error| NotOpen::BadUrl(error.to_string()))?;
        Ok(Self { connection, keys: Keys::new(&address.prefix), bytes, state: Mutex::default() })
    }

    fn failed(&self, problem: &dyn std::fmt::Display) -> StoreError {
        StoreError::new("answers", format!("{}: {problem}", self.connection))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server, unless it rests. After a rest one asks, and until they have heard the others don't wait for it.
    async fn ask<T>(&self, question: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
        let now = Instant::now();
        {
            let mut state = self.state();
            match state.rests_until {
                Some(until) if now < until => {
                    return Err(self.failed(&"it did not answer, and is not asked for a while"));
                }
                Some(_) => state.rests_until = Some(now + REST),
                None => {}
            }
        }
        let answer = question.await;
        let is_lost = |error: &RedisError| error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
        self.state().rests_until = answer.as_ref().err().filter(|error| is_lost(error)).map(|_| Instant::now() + REST);
        answer.map_err(|error| self.failed(&error))
    }

    /// Whether the server has room for more than it has to have.
    async fn has_room(&self) -> Result<bool, StoreError> {
        if let Some((at, is_full)) = self.state().memory
            && at.elapsed() < MEMORY_KNOWN
        {
            return Ok(!is_full);
        }
        let mut connection = self.connection.clone();
        let info: InfoDict = self.ask(async { cmd("INFO").arg("memory").query_async(&mut connection).await }).await?;
        let number = |key: &str| info.get::<f64>(key).unwrap_or(0.0);
        let (used, most) = (number("used_memory"), number("maxmemory"));
        let is_full = most > 0.0 && used > most * FULL;
        self.state().memory = Some((Instant::now(), is_full));
        Ok(!is_full)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Version and time, 8 bytes each, and then the answer.
fn write(answer: &KeptAnswer) -> Vec<u8> {
    let head = answer.version.to_be_bytes().into_iter().chain(answer.read_at.0.to_be_bytes());
    head.chain(answer.body.iter().copied()).collect()
}

fn read(bytes: &[u8]) -> Option<KeptAnswer> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (read_at, body) = rest.split_first_chunk()?;
    let read_at = UnixMillis(i64::from_be_bytes(*read_at));
    Some(KeptAnswer { version: u64::from_be_bytes(*version), read_at, body: body.to_vec() })
}

#[async_trait]
impl Store for RedisAnswers {
    /// Also gives back the room where there is little: while counting waits for some, every question may be a hit, and nobody
    /// keeps anything.
    async fn check(&self) -> Result<Facts, StoreError> {
        if !self.has_room().await? {
            self.forget().await?;
        }
        let (key, mut connection) = (self.keys.answers(), self.connection.clone());
        let answers: u64 = self.ask(async { cmd("ZCARD").arg(key).query_async(&mut connection).await }).await?;
        Ok(Facts::from([("answers", answers.to_string())]))
    }
}

#[async_trait]
impl Answers for RedisAnswers {
    async fn look_up(&self, question: &str) -> Result<Lookup, StoreError> {
        let mut command = cmd("MGET");
        command.arg(self.keys.version()).arg(self.keys.answer(question));
        let mut connection = self.connection.clone();
        let (version, kept): (Option<u64>, Option<Vec<u8>>) =
            self.ask(async { command.query_async(&mut connection).await }).await?;
        Ok(Lookup { version: version.unwrap_or(0), kept: kept.and_then(|bytes| read(&bytes)) })
    }

    async fn keep(&self, question: &str, answer: &KeptAnswer, for_time: Duration) -> Result<(), StoreError> {
        let value = write(answer);
        if question.len() + value.len() > self.bytes {
            return Ok(());
        }
        if !self.has_room().await? {
            self.forget().await?;
            return Ok(());
        }
        let mut call = KEEP.prepare_invoke();
        call.key(self.keys.answers()).key(self.keys.answer(question));
        call.arg(question).arg(value).arg(millis(for_time)).arg(self.bytes).arg(MOST);
        call.arg(self.keys.answer("")).arg(millis(LIST_KEPT));
        let mut connection = self.connection.clone();
        self.ask(async { call.invoke_async::<()>(&mut connection).await }).await
    }

    async fn prolong(&self, question: &str, for_time: Duration) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.cmd("PEXPIRE").arg(self.keys.answer(question)).arg(millis(for_time)).ignore();
        let until = UnixMillis::now().0.saturating_add_unsigned(millis(for_time));
        commands.cmd("ZADD").arg(self.keys.answers()).arg("XX").arg(until).arg(question).ignore();
        let mut connection = self.connection.clone();
        self.ask(async { commands.query_async::<()>(&mut connection).await }).await
    }

    async fn forget(&self) -> Result<u64, StoreError> {
        let list = self.keys.answers();
        let mut connection = self.connection.clone();
        let questions: Vec<String> =
            self.ask(async { cmd("ZRANGE").arg(&list).arg(0).arg(-1).query_async(&mut connection).await }).await?;
        let mut command = cmd("UNLINK");
        for question in &questions {
            command.arg(self.keys.answer(question));
        }
        let list = cmd("DEL").arg(&list).to_owned();
        let mut connection = self.connection.clone();
        self.ask(async {
            let forgotten = if questions.is_empty() { 0 } else { command.query_async(&mut connection).await? };
            list.query_async::<()>(&mut connection).await?;
            Ok(forgotten)
        })
        .await
    }

    async fn note_popular(&self, questions: &[(String, f64)]) -> Result<(), StoreError> {
        let key = self.keys.popular();
        let mut commands = pipe();
        commands.atomic().cmd("DEL").arg(&key).ignore();
        if !questions.is_empty() {
            let add = commands.cmd("ZADD").arg(&key);
            for (question, weight) in questions {
                add.arg(weight).arg(question);
            }
            commands.ignore().cmd("PEXPIRE").arg(&key).arg(millis(POPULAR_KEPT)).ignore();
        }
        let mut connection = self.connection.clone();
        self.ask(async { commands.query_async::<()>(&mut connection).await }).await
    }

    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError> {
        let mut command = cmd("ZREVRANGE");
        command.arg(self.keys.popular()).arg(0).arg(-1).arg("WITHSCORES");
        let mut connection = self.connection.clone();
        self.ask(async { command.query_async(&mut connection).await }).await
    }
}
