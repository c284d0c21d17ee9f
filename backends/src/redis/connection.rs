//! The one connection, shared by whoever asks and replaced when it failed.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::sync::Mutex;

/// How long connecting may take. Nothing here tries again: the callers do, with back-off.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer may take. The driver's own default, half a second, is less than a slow fork or disk takes.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that many ask over at once.
///
/// When it breaks or does not answer in time, and when the server has become a replica, everyone who was waiting gets the
/// error, and the next question opens a new one: after a failover the name leads to the new master. Whether a question
/// that failed was answered is not known.
#[derive(Clone)]
pub(super) struct Connection(Arc<Shared>);

struct Shared {
    client: Client,
    config: AsyncConnectionConfig,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    open: Option<MultiplexedConnection>,
    /// How often a connection was opened.
    number: u64,
    /// When opening one failed last, and why.
    failure: Option<(Instant, RedisError)>,
}

impl Connection {
    /// A connection to a server, opened by the first question.
    pub(super) fn new(server: ConnectionInfo, tls: Option<TlsCertificates>) -> RedisResult<Self> {
        Self::with_patience(server, tls, CONNECT_TIMEOUT, RESPONSE_TIMEOUT)
    }

    /// As [`new`](Self::new), where connecting and an answer may take so long.
    pub(super) fn with_patience(
        server: ConnectionInfo,
        tls: Option<TlsCertificates>,
        connect: Duration,
        response: Duration,
    ) -> RedisResult<Self> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(response));
        let client = match tls {
            Some(certificates) => Client::build_with_tls(server, certificates)?,
            None => Client::open(server)?,
        };
        Ok(Self(Arc::new(Shared { client, config, line: Mutex::default() })))
    }

    /// The open connection, and its number.
    async fn open(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let asked = Instant::now();
        let mut line = self.0.line.lock().await;
        if let Some(open) = &line.open {
            return Ok((open.clone(), line.number));
        }
        // Those who waited while opening failed share the failure, or each would wait for one of its own.
        if let Some((_, error)) = line.failure.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        match self.0.client.get_multiplexed_async_connection_with_config(&self.0.config).await {
            Ok(open) => {
                line.number += 1;
                line.open = Some(open.clone());
                Ok((open, line.number))
            }
            Err(error) => {
                line.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Lets go of a connection, unless it was replaced already.
    async fn hang_up(&self, number: u64) {
        let mut line = self.0.line.lock().await;
        if line.number == number {
            line.open = None;
        }
    }
}

/// Whether another connection may do better.
fn is_lost(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => true,
        ErrorKind::Server(kind) => matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown),
        _ => false,
    }
}

/// The error in an answer: the driver looks into it later.
fn error_in(answer: &Value) -> Option<RedisError> {
    match answer {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (mut open, number) = self.open().await?;
            let answer = open.req_packed_command(cmd).await;
            let error = match &answer {
                Ok(value) => error_in(value),
                Err(error) => Some(error.clone()),
            };
            if error.is_some_and(|error| is_lost(&error)) {
                self.hang_up(number).await;
            }
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (mut open, number) = self.open().await?;
            let answers = open.req_packed_commands(pipeline, offset, count).await;
            let error = match &answers {
                Ok(values) => values.iter().find_map(error_in),
                Err(error) => Some(error.clone()),
            };
            if error.is_some_and(|error| is_lost(&error)) {
                self.hang_up(number).await;
            }
            answers
        })
    }

    fn get_db(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}

impl fmt::Display for Connection {
    /// The server's host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.client.get_connection_info().addr().fmt(f)
    }
}
