//! One HTTP/1.1 connection that asks, and is made again when it was lost.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use service::token::ReadToken;
use tokio::time::timeout;

use super::wire::{Counted, Wire};

/// The answer to a full batch of refusals is about half of it, and 21 000 rows of a dataset a fifth.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// Posts to one path of a server, or gets others of it.
pub(crate) struct Http {
    host: String,
    port: u16,
    host_header: HeaderValue,
    /// Before every path.
    base: String,
    target: Uri,
    content_type: HeaderValue,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    wire: Arc<Wire>,
    connection: Option<Connection>,
}

type Work = http1::Connection<TokioIo<Counted>, Full<Bytes>>;

/// The connection's own work is done by whoever waits for its answer, in the same task: that saves two switches of
/// tasks for each request.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Gone when it is over, which tells the sender.
    work: Option<Pin<Box<Work>>>,
}

/// Why there is no answer; a text for people.
pub(crate) type NoAnswer = String;

impl Http {
    /// Posts to the path under the address. The address is one that was checked: plain HTTP with a host.
    pub(super) fn new(
        address: &Uri,
        path: &str,
        content_type: &'static str,
        timeout: Duration,
        wire: Arc<Wire>,
    ) -> Self {
        let authority = address.authority().expect("a checked address has a host");
        let base = address.path().trim_end_matches('/').to_owned();
        Self {
            // An IPv6 address has brackets in a URL only.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            host_header: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            target: format!("{base}{path}").parse().expect("the path of a URL and a path of ours"),
            base,
            content_type: HeaderValue::from_static(content_type),
            authorization: None,
            timeout,
            wire,
            connection: None,
        }
    }

    /// As [`new`](Self::new), to get, with the token that the server asks for, if there is one.
    pub(crate) fn to_get(address: &Uri, token: Option<&ReadToken>, timeout: Duration, wire: Arc<Wire>) -> Self {
        let header = |token: &ReadToken| HeaderValue::from_str(&token.authorization());
        let authorization = token.map(|token| header(token).expect("a token is visible ASCII"));
        Self { authorization, ..Self::new(address, "/", "application/json", timeout, wire) }
    }

    /// Connects before the first request, so that it does not wait for it. A failure will show with that request.
    pub(super) async fn connect(&mut self) {
        self.connection = timeout(self.timeout, self.new_connection()).await.ok().and_then(Result::ok);
    }

    /// Posts a body; the answer's status and body.
    pub(super) async fn post(&mut self, body: Bytes) -> Result<(StatusCode, Bytes), NoAnswer> {
        self.ask(|http| http.posting(body.clone())).await
    }

    /// Gets a path, with its query; the answer's status and body.
    pub(crate) async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes), NoAnswer> {
        self.ask(|http| http.getting(path)).await
    }

    async fn ask(&mut self, request: impl Fn(&Self) -> Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), NoAnswer> {
        let most = self.timeout;
        match timeout(most, self.exchange(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                self.connection = None;
                Err(describe(&*error))
            }
            Err(_) => {
                // A late answer must not be taken for the next request's.
                self.connection = None;
                Err(format!("no answer within {most:?}"))
            }
        }
    }

    async fn exchange(
        &mut self,
        request: impl Fn(&Self) -> Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
        if let Some(mut connection) = self.connection.take() {
            match connection.exchange(request(self)).await {
                // The server closed the connection while it was idle; the request never left.
                Err(error) if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) => {}
                outcome => {
                    self.connection = Some(connection);
                    return outcome;
                }
            }
        }
        let connection = self.new_connection().await?;
        let request = request(self);
        self.connection.insert(connection).exchange(request).await
    }

    async fn new_connection(&self) -> Result<Connection, Box<dyn Error + Send + Sync>> {
        let stream = Counted::connect(&self.host, self.port, Arc::clone(&self.wire))
            .await
            .map_err(|error| format!("can't connect to {}:{}: {error}", self.host, self.port))?;
        let (sender, work) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, work: Some(Box::pin(work)) })
    }

    fn posting(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::post(self.target.clone())
            .body(Full::new(body))
            .expect("a request of parts that were checked when they were made");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host_header.clone());
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        request
    }

    fn getting(&self, path: &str) -> Request<Full<Bytes>> {
        let mut request = Request::get(format!("{}{path}", self.base))
            .body(Full::default())
            .expect("a request for a path of ours, percent-encoded");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host_header.clone());
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        request
    }
}

impl Connection {
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
        let Self { sender, work } = self;
        let answer = async {
            // An error of `ready` is the same as that of sending, which says more.
            let _ = sender.ready().await;
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await?;
            Ok((status, body.to_bytes()))
        };
        let mut answer = pin!(answer);
        poll_fn(|context| {
            // The answer's future hands the request over, the connection's sends and receives, the answer's takes it.
            if let Poll::Ready(outcome) = answer.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            if work.as_mut().is_some_and(|work| work.as_mut().poll(context).is_ready()) {
                *work = None;
            }
            answer.as_mut().poll(context)
        })
        .await
    }
}

/// An error and its causes, each once.
pub(super) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";

    /// Takes a request whose body ends with a brace.
    async fn take_request(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream
    }

    async fn listen() -> (TcpListener, Http) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let http = Http::new(&url, "/v1/votes", "application/json", Duration::from_mins(1), Arc::default());
        (listener, http)
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_while_idle_costs_no_vote() {
        let (listener, mut http) = listen().await;
        // An answer, and the end of the connection without a word about it.
        tokio::spawn(async move {
            loop {
                take_request(&listener).await.write_all(ANSWER).await.unwrap();
            }
        });
        for _ in 0..3 {
            assert_eq!(http.post(Bytes::from("{}")).await, Ok((StatusCode::ACCEPTED, Bytes::from("{}"))));
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_late_is_not_taken_for_the_next() {
        let (listener, mut http) = listen().await;
        http.timeout = Duration::from_millis(50);
        let (late, stream) = tokio::join!(http.post(Bytes::from("{}")), take_request(&listener));
        assert_eq!(late.unwrap_err(), "no answer within 50ms");
        http.timeout = Duration::from_mins(1);
        let mut stream = stream;
        // The client may be gone already; what counts is what it reads next.
        let _ = stream.write_all(b"HTTP/1.1 500 Late\r\ncontent-length: 0\r\n\r\n").await;
        let server = tokio::spawn(async move { take_request(&listener).await.write_all(ANSWER).await });
        assert_eq!(http.post(Bytes::from("{}")).await.unwrap().0, StatusCode::ACCEPTED);
        server.await.unwrap().unwrap();
    }
}
