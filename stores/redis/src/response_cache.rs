//! Cached responses on the server of the tallies.
//!
//! The cache must not take resources that the tallies need. All keys of the cache expire, its bytes are bounded, and it
//! is cleared if the server's memory is nearly full. The cache has its own connection with short time-outs. After the
//! server did not reply, calls fail at once for [`COOLDOWN`].

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use query::{CacheLookup, CachedResponse, ResponseCache};
use redis::{InfoDict, RedisError, RedisResult, Script, cmd, pipe};
use votes::{ConnectError, HealthDetails, Store, StoreError, UnixMillis};

use crate::{address::Address, connection::Connection, keys::Keys, server};

static PUT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("put_response.lua")));

/// The longest time that connecting may take, and that a reply may take. After a longer wait, the query store would be
/// faster than the cache.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(250);

/// How long no command is sent after the server did not reply.
const COOLDOWN: Duration = Duration::from_secs(1);

/// The maximum number of cached responses.
const MAX_RESPONSES: usize = 1_000;

/// The lifetime of the list of responses, from the last time that a response was added. It must be longer than the
/// lifetime of every response.
const LIST_LIFETIME: Duration = Duration::from_hours(2);

/// The lifetime of the list of popular queries.
const POPULAR_LIFETIME: Duration = Duration::from_hours(24);

/// The share of `maxmemory` above which no response is cached and the cache is cleared. The memory of all keys of the
/// server counts.
const MAX_USED_MEMORY: f64 = 0.9;

/// The time after which the server's memory usage is requested again.
const MEMORY_REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// Cached responses on a Redis server.
pub struct RedisResponseCache {
    connection: Connection,
    keys: Keys,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The end of the pause after the server did not reply. Until then no command is sent.
    paused_until: Option<Instant>,
    /// When the server's memory usage was requested last, and whether the memory was nearly full.
    memory: Option<(Instant, bool)>,
}

impl RedisResponseCache {
    /// Creates a cache of at most `max_bytes` bytes on the server of a URL. Does not connect yet, so the server may be
    /// down.
    ///
    /// # Errors
    /// If the URL is wrong.
    pub fn new(url: &str, max_bytes: usize) -> Result<Self, ConnectError> {
        let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
        let connection = Connection::with_timeouts(address.server, address.tls, OPERATION_TIMEOUT, OPERATION_TIMEOUT);
        let connection = connection.map_err(|error| ConnectError::BadUrl(error.to_string()))?;
        Ok(Self { connection, keys: Keys::new(&address.prefix), max_bytes, state: Mutex::default() })
    }

    fn failed(&self, problem: &dyn std::fmt::Display) -> StoreError {
        StoreError::new("response cache", format!("{}: {problem}", self.connection))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command, unless there is a pause. After a pause only one command is sent first: until its reply arrives,
    /// the other calls fail at once.
    async fn send<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
        let now = Instant::now();
        {
            let mut state = self.state();
            match state.paused_until {
                Some(until) if now < until => {
                    return Err(self.failed(&"it did not reply, and gets no calls for a while"));
                }
                Some(_) => state.paused_until = Some(now + COOLDOWN),
                None => {}
            }
        }
        let reply = call.await;
        let is_lost = |error: &RedisError| error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
        self.state().paused_until =
            reply.as_ref().err().filter(|error| is_lost(error)).map(|_| Instant::now() + COOLDOWN);
        reply.map_err(|error| self.failed(&error))
    }

    /// Returns whether the server has memory for cached responses. The result may be as old as
    /// [`MEMORY_REFRESH_INTERVAL`].
    async fn has_memory(&self) -> Result<bool, StoreError> {
        if let Some((at, is_full)) = self.state().memory
            && at.elapsed() < MEMORY_REFRESH_INTERVAL
        {
            return Ok(!is_full);
        }
        let mut connection = self.connection.clone();
        let info: InfoDict = self.send(async { cmd("INFO").arg("memory").query_async(&mut connection).await }).await?;
        let is_full = server::memory_used_ratio(&info).is_some_and(|ratio| ratio > MAX_USED_MEMORY);
        self.state().memory = Some((Instant::now(), is_full));
        Ok(!is_full)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Encodes a response: the version and the time, each 8 bytes and big-endian, and then the body.
fn encode(response: &CachedResponse) -> Vec<u8> {
    let head = response.version.to_be_bytes().into_iter().chain(response.read_at.0.to_be_bytes());
    head.chain(response.body.iter().copied()).collect()
}

/// Decodes the bytes that [`encode`] returned.
fn decode(bytes: &[u8]) -> Option<CachedResponse> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (read_at, body) = rest.split_first_chunk()?;
    let read_at = UnixMillis(i64::from_be_bytes(*read_at));
    Some(CachedResponse { version: u64::from_be_bytes(*version), read_at, body: body.to_vec() })
}

#[async_trait]
impl Store for RedisResponseCache {
    /// Also clears the cache if the server's memory is nearly full. [`put`](Self::put) does so too. But while counting
    /// waits for memory, `put` may not be called, because all responses may be cached.
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        if !self.has_memory().await? {
            self.clear().await?;
        }
        let (key, mut connection) = (self.keys.responses(), self.connection.clone());
        let responses: u64 = self.send(async { cmd("ZCARD").arg(key).query_async(&mut connection).await }).await?;
        Ok(HealthDetails::from([("responses", responses.to_string())]))
    }
}

#[async_trait]
impl ResponseCache for RedisResponseCache {
    async fn get(&self, query: &str) -> Result<CacheLookup, StoreError> {
        let mut command = cmd("MGET");
        command.arg(self.keys.version()).arg(self.keys.response(query));
        let mut connection = self.connection.clone();
        let (version, cached): (Option<u64>, Option<Vec<u8>>) =
            self.send(async { command.query_async(&mut connection).await }).await?;
        Ok(CacheLookup { version: version.unwrap_or(0), cached: cached.and_then(|bytes| decode(&bytes)) })
    }

    async fn put(&self, query: &str, response: &CachedResponse, lifetime: Duration) -> Result<(), StoreError> {
        let value = encode(response);
        if query.len() + value.len() > self.max_bytes {
            return Ok(());
        }
        if !self.has_memory().await? {
            self.clear().await?;
            return Ok(());
        }
        let mut call = PUT.prepare_invoke();
        call.key(self.keys.responses()).key(self.keys.response(query));
        call.arg(query).arg(value).arg(millis(lifetime)).arg(self.max_bytes).arg(MAX_RESPONSES);
        call.arg(self.keys.response("")).arg(millis(LIST_LIFETIME));
        let mut connection = self.connection.clone();
        self.send(async { call.invoke_async::<()>(&mut connection).await }).await
    }

    async fn extend(&self, query: &str, lifetime: Duration) -> Result<(), StoreError> {
        let mut commands = pipe();
        commands.cmd("PEXPIRE").arg(self.keys.response(query)).arg(millis(lifetime)).ignore();
        let until = UnixMillis::now().0.saturating_add_unsigned(millis(lifetime));
        commands.cmd("ZADD").arg(self.keys.responses()).arg("XX").arg(until).arg(query).ignore();
        let mut connection = self.connection.clone();
        self.send(async { commands.query_async::<()>(&mut connection).await }).await
    }

    async fn clear(&self) -> Result<u64, StoreError> {
        let list = self.keys.responses();
        let mut connection = self.connection.clone();
        let queries: Vec<String> =
            self.send(async { cmd("ZRANGE").arg(&list).arg(0).arg(-1).query_async(&mut connection).await }).await?;
        let mut command = cmd("UNLINK");
        for query in &queries {
            command.arg(self.keys.response(query));
        }
        let list = cmd("DEL").arg(&list).to_owned();
        let mut connection = self.connection.clone();
        self.send(async {
            let cleared = if queries.is_empty() { 0 } else { command.query_async(&mut connection).await? };
            list.query_async::<()>(&mut connection).await?;
            Ok(cleared)
        })
        .await
    }

    async fn put_popular(&self, queries: &[(String, f64)]) -> Result<(), StoreError> {
        let key = self.keys.popular();
        let mut commands = pipe();
        commands.atomic().cmd("DEL").arg(&key).ignore();
        if !queries.is_empty() {
            let add = commands.cmd("ZADD").arg(&key);
            for (query, weight) in queries {
                add.arg(weight).arg(query);
            }
            commands.ignore().cmd("PEXPIRE").arg(&key).arg(millis(POPULAR_LIFETIME)).ignore();
        }
        let mut connection = self.connection.clone();
        self.send(async { commands.query_async::<()>(&mut connection).await }).await
    }

    async fn popular(&self) -> Result<Vec<(String, f64)>, StoreError> {
        let mut command = cmd("ZREVRANGE");
        command.arg(self.keys.popular()).arg(0).arg(-1).arg("WITHSCORES");
        let mut connection = self.connection.clone();
        self.send(async { command.query_async(&mut connection).await }).await
    }
}
