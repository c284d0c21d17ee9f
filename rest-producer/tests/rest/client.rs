//! A REST producer for tests, and a client that can send any bytes.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use rest_producer::{BodyTimeouts, Dependencies};
use serde_json::Value;
use service::{CancellationToken, client_ip::TrustedProxies, ingest::MeteredIngest, serve::ServeError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use votes::{Contest, Contests, Ingest, ProducerKind, UnixMillis, VoterSecret, VotesPerVoter, fake::FakeLog};

/// The longest time that a test waits for an event.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A producer that runs until it is dropped.
pub(crate) struct TestProducer {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<FakeLog>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<Result<(), ServeError>>,
    pub(crate) metered: MeteredIngest,
}

impl TestProducer {
    pub(crate) async fn open() -> Self {
        Self::open_with(BodyTimeouts::default()).await
    }

    pub(crate) async fn open_with(timeouts: BodyTimeouts) -> Self {
        Self::open_behind(TrustedProxies::default(), timeouts).await
    }

    pub(crate) async fn open_behind(proxies: TrustedProxies, timeouts: BodyTimeouts) -> Self {
        let log = FakeLog::new();
        Self::open_with_ingest(ingest(ProducerKind::Rest, &log), log, proxies, timeouts).await
    }

    /// Opens a producer with any [`Ingest`].
    pub(crate) async fn open_with_ingest(
        ingest: Ingest,
        log: Arc<FakeLog>,
        proxies: TrustedProxies,
        timeouts: BodyTimeouts,
    ) -> Self {
        let metered = MeteredIngest::new(ingest, proxies);
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dependencies = Dependencies { ingest: metered.clone(), timeouts, log_writer: None };
        let server = tokio::spawn(rest_producer::run(listener, dependencies, shutdown.clone()));
        Self { address, log, shutdown, server, metered }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// Sends one request on a connection of its own.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut client = self.connect().await;
        client.post(path, headers, body).await;
        client.response().await
    }

    /// Casts one vote, which is a JSON object.
    pub(crate) async fn vote(&self, body: &str) -> Response {
        self.post("/v1/votes", &[JSON], body.as_bytes()).await
    }

    /// Casts a batch, which is a JSON array.
    pub(crate) async fn batch(&self, body: &str) -> Response {
        self.post("/v1/votes/batch", &[JSON], body.as_bytes()).await
    }

    /// Waits until this many votes wait for their receipts.
    pub(crate) async fn wait_until_pending(&self, votes: usize) {
        let waited = timeout(TEST_TIMEOUT, self.log.wait_until_pending(votes)).await;
        waited.unwrap_or_else(|_| panic!("{} votes wait, not {votes}", self.log.pending()));
    }

    /// Waits until the log has this many votes.
    pub(crate) async fn wait_until_logged(&self, votes: usize) {
        let waited = timeout(TEST_TIMEOUT, self.log.wait_until_logged(votes)).await;
        waited.unwrap_or_else(|_| panic!("the log has {} votes, not {votes}", self.log.log().len()));
    }
}

impl Drop for TestProducer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");
pub(crate) const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// Creates an [`Ingest`] for this log.
pub(crate) fn ingest(kind: ProducerKind, log: &Arc<FakeLog>) -> Ingest {
    let secret = VoterSecret::new(&[7; 32]).unwrap();
    Ingest::new(kind, Arc::new(contests()), Some(secret), log.clone())
}

fn contests() -> Contests {
    let contest = |candidates: Option<&[&str]>, votes_per_voter, opens, closes| {
        let candidates = candidates.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Contest::new(candidates, votes_per_voter, opens, closes).unwrap()
    };
    let (many, one) = (VotesPerVoter::Many, VotesPerVoter::One);
    let past = Some(UnixMillis(0));
    let future = Some(UnixMillis(4_102_444_800_000));
    Contests::new(BTreeMap::from([
        ("bands".parse().unwrap(), contest(None, many, None, None)),
        ("finals".parse().unwrap(), contest(Some(&["Pink Floyd", "Björk"]), many, None, None)),
        ("fair".parse().unwrap(), contest(None, one, None, None)),
        ("over".parse().unwrap(), contest(None, many, None, past)),
        ("soon".parse().unwrap(), contest(None, many, future, None)),
    ]))
}

/// A client with one connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// Bytes that were received and belong to the next response.
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends bytes, and ignores an error: the server may have responded and closed the connection already.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.head(path, headers, body.len()).await;
        self.try_send(body).await;
    }

    /// Sends the head of a request with a body of this length.
    pub(crate) async fn head(&mut self, path: &str, headers: &[(&str, &str)], length: usize) {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: producer\r\nContent-Length: {length}\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        self.send((head + "\r\n").as_bytes()).await;
    }

    pub(crate) async fn close_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) async fn response(&mut self) -> Response {
        timeout(TEST_TIMEOUT, self.read_response()).await.expect("no response")
    }

    async fn read_response(&mut self) -> Response {
        let head_end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "closed without a response");
        };
        let head = String::from_utf8(self.read[..head_end].to_vec()).unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: BTreeMap<_, _> = headers.lines().filter_map(header).collect();
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let end = head_end + 4 + length;
        while self.read.len() < end {
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the response is incomplete");
        }
        let next = self.read.split_off(end);
        let body = std::mem::replace(&mut self.read, next).split_off(head_end + 4);
        Response { status, headers, body: String::from_utf8(body).unwrap() }
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn items(&self) -> Vec<Value> {
        self.json().as_array().unwrap_or_else(|| panic!("no array: {self:?}")).clone()
    }
}

/// Returns the last part of a problem's type, like `invalid-field`.
pub(crate) fn slug(problem: &Value) -> &str {
    problem["type"].as_str().unwrap_or_default().strip_prefix("urn:ovation:").unwrap_or_default()
}
