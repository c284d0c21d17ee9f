//! A small HTTP client, and a reader of server-sent events.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::HeaderMap,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::server::{Server, with_timeout};

/// A response that was read to its end.
pub(crate) struct FullResponse {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl FullResponse {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Sends a GET request on a new connection.
async fn send(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (Response<Incoming>, JoinHandle<()>) {
    send_with_method("GET", address, path, headers).await
}

async fn send_with_method(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> (Response<Incoming>, JoinHandle<()>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    (sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap(), connection)
}

impl Server {
    pub(crate) async fn get(&self, path: &str) -> FullResponse {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> FullResponse {
        self.request("GET", path, headers).await
    }

    /// Sends a request without a body.
    pub(crate) async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> FullResponse {
        with_timeout(async {
            let (response, _) = send_with_method(method, self.http, path, headers).await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            FullResponse { status: parts.status.as_u16(), headers: parts.headers, body }
        })
        .await
    }

    /// Sends a request target exactly as it is, and returns the whole response as text.
    pub(crate) async fn get_raw(&self, target: &str) -> String {
        with_timeout(async {
            let mut stream = TcpStream::connect(self.http).await.unwrap();
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            response
        })
        .await
    }

    /// Opens the stream of a contest's tally.
    pub(crate) async fn watch(&self, contest: &str) -> Events {
        with_timeout(Events::open(self.http, &format!("/v1/contests/{contest}/tally/stream"))).await
    }
}

/// A stream of server-sent events. Events stay in the socket until they are read.
pub(crate) struct Events {
    response: Response<Incoming>,
    read: Vec<u8>,
    /// The number of bytes of `read` in which no event ends.
    searched: usize,
    connection: JoinHandle<()>,
}

/// One event, or a comment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: String,
    pub(crate) comment: String,
}

impl Event {
    pub(crate) fn tally(&self) -> Value {
        assert_eq!(self.kind, "tally", "{self:?}");
        serde_json::from_str(&self.data).unwrap()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Events {
    async fn open(address: SocketAddr, path: &str) -> Self {
        let (response, connection) = send(address, path, &[("accept", "text/event-stream")]).await;
        Self { response, read: Vec::new(), searched: 0, connection }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the next event or comment, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.read[self.searched..].windows(2).position(|bytes| bytes == b"\n\n") {
                let block: Vec<u8> = self.read.drain(..self.searched + end + 2).collect();
                self.searched = 0;
                return Some(parse(str::from_utf8(&block).unwrap()));
            }
            self.searched = self.read.len().saturating_sub(1);
            match with_timeout(self.response.body_mut().frame()).await {
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap()),
                _ => return None,
            }
        }
    }

    /// Returns the next tally. Skips heartbeats and comments.
    pub(crate) async fn tally(&mut self) -> Value {
        with_timeout(self.find(|event| event.kind == "tally")).await.tally()
    }

    /// Returns the next tally for which the condition is true.
    pub(crate) async fn tally_where(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        with_timeout(self.find(|event| event.kind == "tally" && is_wanted(&event.tally()))).await.tally()
    }

    /// Returns the next event for which the condition is true.
    pub(crate) async fn find(&mut self, is_wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if is_wanted(&event) {
                return event;
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').unwrap();
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => event.id = value,
            "event" => event.kind = value,
            "data" => event.data = value,
            "" => event.comment = value,
            _ => panic!("{line}"),
        }
    }
    event
}
