//! The connection that all calls share. A connection that has failed is replaced.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::sync::Mutex;

/// The longest time that connecting may take. This client does not try again, because its callers do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time that a reply may take. The driver's default of half a second is too short for a slow fork or disk.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// If a caller drops a request that has waited this long, the connection is replaced. A health check waits shorter than
/// [`RESPONSE_TIMEOUT`], so otherwise it would never get another connection. The limit is longer than a slow reply, so
/// callers that lose interest in a reply cause no new connections.
const MAX_DROPPED_WAIT: Duration = Duration::from_secs(1);

/// A connection that many callers use at the same time.
///
/// The connection is replaced when it breaks, when a reply takes too long, when a caller has waited long for a reply and
/// gives up, and when the server has become a replica. The next call opens a new connection: after a failover the host
/// name may resolve to the new master. When the connection breaks, every caller that waits for a reply gets an error.
/// After an error, a caller does not know whether the server ran the command.
#[derive(Clone)]
pub(super) struct Connection(Arc<Inner>);

struct Inner {
    client: Client,
    config: AsyncConnectionConfig,
    state: Mutex<ConnectionState>,
    /// The highest generation whose connection must be replaced, or 0.
    failed_generation: AtomicU64,
}

#[derive(Default)]
struct ConnectionState {
    open: Option<MultiplexedConnection>,
    /// The number of connections that were opened.
    generation: u64,
    /// The time and the error of the last attempt to connect that failed.
    failure: Option<(Instant, RedisError)>,
}

impl Connection {
    /// Creates a connection to a server. The first command opens the connection.
    pub(super) fn new(server: ConnectionInfo, tls: Option<TlsCertificates>) -> RedisResult<Self> {
        Self::with_timeouts(server, tls, CONNECT_TIMEOUT, RESPONSE_TIMEOUT)
    }

    /// Does the same as [`new`](Self::new), with other time-outs for connecting and for a reply.
    pub(super) fn with_timeouts(
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
        Ok(Self(Arc::new(Inner { client, config, state: Mutex::default(), failed_generation: AtomicU64::new(0) })))
    }

    /// Returns the open connection and its generation. Opens a connection if there is none.
    async fn open(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        let requested_at = Instant::now();
        let mut state = self.0.state.lock().await;
        if self.0.failed_generation.load(Ordering::Acquire) >= state.generation {
            state.open = None;
        }
        if let Some(open) = &state.open {
            return Ok((open.clone(), state.generation));
        }
        // A caller that waited for the lock while an attempt to connect failed gets the error of that attempt.
        // Otherwise the callers would wait for one time-out after another.
        if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at >= requested_at) {
            return Err(error.clone());
        }
        match self.0.client.get_multiplexed_async_connection_with_config(&self.0.config).await {
            Ok(open) => {
                state.generation += 1;
                state.open = Some(open.clone());
                Ok((open, state.generation))
            }
            Err(error) => {
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

/// A request that waits for its reply on the connection of a generation.
struct Request<'a> {
    inner: &'a Inner,
    generation: u64,
    sent_at: Instant,
    has_ended: bool,
}

impl<'a> Request<'a> {
    fn new(connection: &'a Connection, generation: u64) -> Self {
        Self { inner: &connection.0, generation, sent_at: Instant::now(), has_ended: false }
    }

    /// Ends the request. If it failed with this error, the next call may open a new connection.
    fn end(mut self, error: Option<&RedisError>) {
        self.has_ended = true;
        if error.is_some_and(must_reconnect) {
            self.replace_connection();
        }
    }

    /// Makes the next call open a new connection, unless the connection of this request was already replaced.
    fn replace_connection(&self) {
        self.inner.failed_generation.fetch_max(self.generation, Ordering::AcqRel);
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if !self.has_ended && self.sent_at.elapsed() >= MAX_DROPPED_WAIT {
            self.replace_connection();
        }
    }
}

/// Returns whether the connection has to be replaced after this error.
fn must_reconnect(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => true,
        ErrorKind::Server(kind) => matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown),
        _ => false,
    }
}

/// Returns the error in a reply. The driver converts such a reply to an error only after this module has returned it.
fn error_in(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (mut open, generation) = self.open().await?;
            let request = Request::new(self, generation);
            let reply = open.req_packed_command(cmd).await;
            let error = match &reply {
                Ok(value) => error_in(value),
                Err(error) => Some(error.clone()),
            };
            request.end(error.as_ref());
            reply
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (mut open, generation) = self.open().await?;
            let request = Request::new(self, generation);
            let replies = open.req_packed_commands(pipeline, offset, count).await;
            let error = match &replies {
                Ok(values) => values.iter().find_map(error_in),
                Err(error) => Some(error.clone()),
            };
            request.end(error.as_ref());
            replies
        })
    }

    fn get_db(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}

impl fmt::Display for Connection {
    /// Writes the server's host and port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.client.get_connection_info().addr().fmt(f)
    }
}
