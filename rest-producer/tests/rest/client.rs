//! A door to try, and a client that can send anything.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use rest_producer::Patience;
use serde_json::Value;
use service::{CancellationToken, client::TrustedProxies, door::MeteredDoor, http::ServeError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use votes::{Contest, Contests, Door, DoorKind, UnixMillis, VoterSecret, VotesPerVoter, fake::FakeQueue};

/// No test waits longer for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// A door that is open until it is dropped.
pub(crate) struct TestDoor {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<FakeQueue>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<Result<(), ServeError>>,
    pub(crate) metered: MeteredDoor,
}

impl TestDoor {
    pub(crate) async fn open() -> Self {
        Self::open_with(Patience::default()).await
    }

    pub(crate) async fn open_with(patience: Patience) -> Self {
        Self::open_behind(TrustedProxies::default(), patience).await
    }

    pub(crate) async fn open_behind(proxies: TrustedProxies, patience: Patience) -> Self {
        let log = FakeQueue::new();
        Self::open_before(door(DoorKind::Rest, &log), log, proxies, patience).await
    }

    /// The HTTP end of any door.
    pub(crate) async fn open_before(
        door: Door,
        log: Arc<FakeQueue>,
        proxies: TrustedProxies,
        patience: Patience,
    ) -> Self {
        let metered = MeteredDoor::new(door, proxies);
        let shutdown = CancellationToken::new();
        let (bound, address) = oneshot::channel();
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = move |address| _ = bound.send(address);
        let server = tokio::spawn(rest_producer::run_with(here, metered.clone(), patience, shutdown.clone(), bound));
        Self { address: address.await.unwrap(), log, shutdown, server, metered }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut client = self.connect().await;
        client.post(path, headers, body).await;
        client.answer().await
    }

    /// One vote as JSON.
    pub(crate) async fn vote(&self, body: &str) -> Answer {
        self.post("/v1/votes", &[JSON], body.as_bytes()).await
    }

    /// A batch as a JSON array.
    pub(crate) async fn batch(&self, body: &str) -> Answer {
        self.post("/v1/votes/batch", &[JSON], body.as_bytes()).await
    }

    /// Waits until so many votes wait for their receipts.
    pub(crate) async fn until_waiting(&self, votes: usize) {
        let waited = timeout(LIMIT, self.log.until_waiting(votes)).await;
        waited.unwrap_or_else(|_| panic!("{} votes wait, not {votes}", self.log.waiting()));
    }

    /// Waits until the log has so many votes.
    pub(crate) async fn until_logged(&self, votes: usize) {
        let waited = timeout(LIMIT, self.log.until_logged(votes)).await;
        waited.unwrap_or_else(|_| panic!("the log has {} votes, not {votes}", self.log.log().len()));
    }
}

impl Drop for TestDoor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");
pub(crate) const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// A door to this log.
pub(crate) fn door(kind: DoorKind, log: &Arc<FakeQueue>) -> Door {
    let secret = VoterSecret::new(&[7; 32]).unwrap();
    Door::new(kind, Arc::new(contests()), Some(secret), log.clone())
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

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// What was read and is of the next answer.
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends what a server that has already answered may refuse to take.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.head(path, headers, body.len()).await;
        self.try_send(body).await;
    }

    /// Announces a body.
    pub(crate) async fn head(&mut self, path: &str, headers: &[(&str, &str)], length: usize) {
        let mut head = format!("POST {path} HTTP/1.1\r\nHost: door\r\nContent-Length: {length}\r\n");
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        self.send((head + "\r\n").as_bytes()).await;
    }

    pub(crate) async fn close_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        timeout(LIMIT, self.read_answer()).await.expect("no answer")
    }

    async fn read_answer(&mut self) -> Answer {
        let head_end = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "closed without an answer");
        };
        let head = String::from_utf8(self.read[..head_end].to_vec()).unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let headers: BTreeMap<_, _> = headers.lines().filter_map(header).collect();
        let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let end = head_end + 4 + length;
        while self.read.len() < end {
            assert!(self.stream.read_buf(&mut self.read).await.unwrap() > 0, "the answer breaks off");
        }
        let next = self.read.split_off(end);
        let body = std::mem::replace(&mut self.read, next).split_off(head_end + 4);
        Answer { status, headers, body: String::from_utf8(body).unwrap() }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn items(&self) -> Vec<Value> {
        self.json().as_array().unwrap_or_else(|| panic!("no array: {self:?}")).clone()
    }
}

/// The last part of a problem's type: `invalid-field`.
pub(crate) fn slug(problem: &Value) -> &str {
    problem["type"].as_str().unwrap_or_default().strip_prefix("urn:ovation:").unwrap_or_default()
}
