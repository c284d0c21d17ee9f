//! An HTTP/1.1 client with one connection. If the connection is lost, the next request opens a new one.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use client::error::chain;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use service::token::ReadToken;
use tokio::time::timeout;

use crate::connections::{ConnectionGroup, CountedStream};

/// The maximum size of a response body, in bytes. The response to a full batch with only refusals has about half of
/// this size, and 21 000 rows of a dataset have about a fifth.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Sends POST requests to one path of a server, or GET requests to any path.
pub(crate) struct Http {
    host: String,
    port: u16,
    host_header: HeaderValue,
    /// The prefix of every path.
    base: String,
    target: Uri,
    content_type: HeaderValue,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    group: Arc<ConnectionGroup>,
    connection: Option<Connection>,
}

type Driver = http1::Connection<TokioIo<CountedStream>, Full<Bytes>>;

/// A connection. There is no separate task that drives the connection: the task that waits for the response does, which
/// saves two task switches per request.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` after the connection has ended. When the driver is dropped, the sender reports the end.
    driver: Option<Pin<Box<Driver>>>,
}

/// Why there is no response, as a text for reports.
pub(crate) type RequestError = String;

impl Http {
    /// Creates a client for POST requests to one path of a server. `address` must be a plain HTTP URL with a host, see
    /// [`check_url`](crate::flood::check_url).
    pub(crate) fn new(
        address: &Uri,
        path: &str,
        content_type: &'static str,
        timeout: Duration,
        group: Arc<ConnectionGroup>,
    ) -> Self {
        let authority = address.authority().expect("a checked address has a host");
        let base = address.path().trim_end_matches('/').to_owned();
        Self {
            // An IPv6 address has brackets only in a URL.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            host_header: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            target: format!("{base}{path}").parse().expect("the path of a URL and one of our paths"),
            base,
            content_type: HeaderValue::from_static(content_type),
            authorization: None,
            timeout,
            group,
            connection: None,
        }
    }

    /// Creates a client for GET requests to any path of a server. The requests have the read token, if there is one.
    pub(crate) fn for_get(
        address: &Uri,
        token: Option<&ReadToken>,
        timeout: Duration,
        group: Arc<ConnectionGroup>,
    ) -> Self {
        let header = |token: &ReadToken| HeaderValue::from_str(&token.authorization());
        let authorization = token.map(|token| header(token).expect("a token is visible ASCII"));
        Self { authorization, ..Self::new(address, "/", "application/json", timeout, group) }
    }

    /// Connects in advance, so that the first request does not wait for the connection. If this fails, the first
    /// request connects again.
    pub(crate) async fn connect(&mut self) {
        self.connection = timeout(self.timeout, self.new_connection()).await.ok().and_then(Result::ok);
    }

    /// Sends a POST request. Returns the status and the body of the response.
    pub(crate) async fn post(&mut self, body: Bytes) -> Result<(StatusCode, Bytes), RequestError> {
        self.send(|http| http.post_request(body.clone())).await
    }

    /// Sends a GET request for a path with its query. Returns the status and the body of the response.
    pub(crate) async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes), RequestError> {
        self.send(|http| http.get_request(path)).await
    }

    async fn send(
        &mut self,
        request: impl Fn(&Self) -> Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        let limit = self.timeout;
        match timeout(limit, self.exchange(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                self.connection = None;
                Err(chain(&*error))
            }
            Err(_) => {
                // A late response must not be read as the response to the next request.
                self.connection = None;
                Err(format!("no response within {limit:?}"))
            }
        }
    }

    async fn exchange(
        &mut self,
        request: impl Fn(&Self) -> Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
        if let Some(mut connection) = self.connection.take() {
            match connection.exchange(request(self)).await {
                // The server closed the connection while it was idle, and the request was not sent.
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
        let stream = CountedStream::connect(&self.host, self.port, Arc::clone(&self.group))
            .await
            .map_err(|error| format!("can't connect to {}:{}: {error}", self.host, self.port))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }

    fn post_request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request =
            Request::post(self.target.clone()).body(Full::new(body)).expect("all parts of the request are checked");
        let headers = request.headers_mut();
        headers.insert(HOST, self.host_header.clone());
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        request
    }

    fn get_request(&self, path: &str) -> Request<Full<Bytes>> {
        let mut request =
            Request::get(format!("{}{path}", self.base)).body(Full::default()).expect("the path is percent-encoded");
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
        let Self { sender, driver } = self;
        let response = async {
            // `send_request` returns the same error as `ready`, with more details.
            let _ = sender.ready().await;
            let head = sender.send_request(request).await?;
            let status = head.status();
            let body = Limited::new(head.into_body(), MAX_RESPONSE_BYTES).collect().await?;
            Ok((status, body.to_bytes()))
        };
        let mut response = pin!(response);
        poll_fn(|context| {
            // The first poll passes the request to the driver. The driver sends the request and receives the response.
            // The second poll takes the response.
            if let Poll::Ready(outcome) = response.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
                *driver = None;
            }
            response.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    const RESPONSE: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}";

    /// Accepts a connection and reads a request, up to the brace at the end of its body.
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
        // The server responds, and then closes the connection without announcing that.
        tokio::spawn(async move {
            loop {
                take_request(&listener).await.write_all(RESPONSE).await.unwrap();
            }
        });
        for _ in 0..3 {
            assert_eq!(http.post(Bytes::from("{}")).await, Ok((StatusCode::ACCEPTED, Bytes::from("{}"))));
        }
    }

    #[tokio::test]
    async fn a_late_response_is_not_read_as_the_next_one() {
        let (listener, mut http) = listen().await;
        http.timeout = Duration::from_millis(50);
        let (late, stream) = tokio::join!(http.post(Bytes::from("{}")), take_request(&listener));
        assert_eq!(late.unwrap_err(), "no response within 50ms");
        http.timeout = Duration::from_mins(1);
        let mut stream = stream;
        // Writing may fail, because the client may have closed the connection already.
        let _ = stream.write_all(b"HTTP/1.1 500 Late\r\ncontent-length: 0\r\n\r\n").await;
        let server = tokio::spawn(async move { take_request(&listener).await.write_all(RESPONSE).await });
        assert_eq!(http.post(Bytes::from("{}")).await.unwrap().0, StatusCode::ACCEPTED);
        server.await.unwrap().unwrap();
    }
}
