//! The connections of our HTTP servers. hyper reads the requests from the connections, with limits, and this file
//! passes them to Rocket.
//!
//! The accept loop of Rocket 0.5 has three problems, and no setting of Rocket avoids them:
//! - It waits without a limit for the head of a request, and then for the first 14 bytes of its body, before any code
//!   of ours runs. A client that sends less gets no response and keeps its connection open forever.
//! - It drops header values that are not UTF-8.
//! - While an idle connection is open, every shutdown takes the whole grace period.
//!
//! So this file accepts the connections itself. It passes each request to Rocket through Rocket's local client, which
//! is the only public interface of Rocket that does not open a listener. Rocket does not read the body: a route takes
//! the body as a [`RequestBody`](super::body::RequestBody).

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Frame, Incoming},
    header::{HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rocket::{
    http::{Header, Status},
    local::asynchronous::{Client, LocalRequest, LocalResponse},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{body, problem::Problem};

/// How long a client may take to send the head of a request. This includes the idle time before the request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long open requests may take to end after shutdown began. A vote usually takes far less.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// The maximum number of open connections. Further connections wait in the backlog of the listener.
const MAX_CONNECTIONS: usize = 8_192;

/// The pause after the listener failed to accept a connection.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Serves the connections of the listener until shutdown, then waits up to [`SHUTDOWN_GRACE`] for open requests to end.
pub(super) async fn serve(listener: TcpListener, client: Client, shutdown: CancellationToken) {
    let client = Arc::new(client);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, remote)) => {
                    connections.spawn(serve_connection(client.clone(), stream, remote, shutdown.clone()));
                }
                // Usually, the process has too many open files, and other connections have to close first.
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
        }
    }
    drop(listener);
    client.rocket().shutdown().notify();
    let ended = timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        // No acknowledged vote is lost: it is durable. The votes of an aborted request are not acknowledged.
        let connections = connections.len();
        tracing::warn!(connections, "aborting the connections that are open after the shutdown grace period");
    }
}

async fn serve_connection(client: Arc<Client>, stream: TcpStream, remote: SocketAddr, shutdown: CancellationToken) {
    // A response is written at once, so Nagle's algorithm would only delay it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(client.clone(), remote, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%remote, %error, "connection failed");
    }
}

type Body = Either<Full<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, std::io::Error>>>>;
type HttpResponse = Response<Body>;

async fn respond(
    client: Arc<Client>,
    remote: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<HttpResponse, Infallible> {
    let (sender, mut response) = oneshot::channel();
    // A response borrows from the client, so one future owns both until the last byte is sent.
    let mut sending = Box::pin(async move {
        match local_request(&client, remote, request) {
            Ok(request) => send(request.dispatch().await, sender).await,
            Err(problem) => _ = sender.send(problem_response(&problem)),
        }
    });
    let response = tokio::select! {
        biased;
        () = &mut sending => response.await,
        // The body continues: a task sends the rest as fast as the connection takes it.
        head = &mut response => {
            tokio::spawn(sending);
            head
        }
    };
    let failed = || problem_response(&Problem::plain(Status::InternalServerError, "the server created no response"));
    Ok(response.unwrap_or_else(|_| failed()))
}

fn local_request(
    client: &Client,
    remote: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<LocalRequest<'_>, Problem> {
    let bad = |detail: String| Problem::plain(Status::BadRequest, detail);
    let (head, incoming) = request.into_parts();
    let method = head.method.as_str().parse().map_err(|()| bad(format!("the method {} is unknown", head.method)))?;
    let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
    let mut request = client.req(method, uri);
    for (name, value) in &head.headers {
        let value = str::from_utf8(value.as_bytes()).map_err(|_| bad(format!("the header {name} is not UTF-8")))?;
        request.add_header(Header::new(name.as_str().to_owned(), value.to_owned()));
    }
    request.set_remote(remote);
    body::attach(incoming, request.inner());
    Ok(request)
}

/// Sends a response through `sender`: at once if its length is known, else in chunks.
async fn send(mut response: LocalResponse<'_>, sender: oneshot::Sender<HttpResponse>) {
    let head = head(&response);
    let length = response.headers().get_one("Content-Length").and_then(|length| length.parse().ok());
    if let Some(length) = length {
        let mut body = Vec::with_capacity(length);
        // If the body can't be read, the dropped sender makes the response a 500.
        if response.read_to_end(&mut body).await.is_ok() {
            let _ = sender.send(build_response(head, Either::Left(Full::from(body))));
        }
        return;
    }
    let (frames, receiver) = mpsc::channel(1);
    if sender.send(build_response(head, Either::Right(StreamBody::new(ReceiverStream::new(receiver))))).is_err() {
        return;
    }
    let mut chunk = BytesMut::new();
    loop {
        chunk.reserve(CHUNK_BYTES);
        let read = tokio::select! {
            read = response.read_buf(&mut chunk) => read,
            () = frames.closed() => return,
        };
        let frame = match read {
            Ok(0) => return,
            Ok(_) => Ok(Frame::data(chunk.split().freeze())),
            Err(error) => Err(error),
        };
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

/// The size of the buffer for reading a response without a length, in bytes.
const CHUNK_BYTES: usize = 4 * 1024;

type Head = (StatusCode, HeaderMap);

/// Copies the status and the headers. The map is created with room for all headers: growing the map would cost more
/// than filling it.
fn head(response: &LocalResponse<'_>) -> Result<Head, hyper::http::Error> {
    let mut headers = HeaderMap::with_capacity(response.headers().len());
    for header in response.headers().iter() {
        let name = HeaderName::from_bytes(header.name().as_str().as_bytes())?;
        headers.append(name, HeaderValue::from_str(header.value())?);
    }
    Ok((StatusCode::from_u16(response.status().code)?, headers))
}

fn build_response(head: Result<Head, hyper::http::Error>, body: Body) -> HttpResponse {
    match head {
        Ok((status, headers)) => {
            let mut response = Response::new(body);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            response
        }
        Err(error) => problem_response(&Problem::plain(
            Status::InternalServerError,
            format!("the response could not be written: {error}"),
        )),
    }
}

/// Converts a problem to a response without Rocket, with the headers that [`RequestId`](super::request_id::RequestId)
/// adds to other responses.
fn problem_response(problem: &Problem) -> HttpResponse {
    let body = serde_json::to_vec(&problem.document).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::from(body)));
    *response.status_mut() = StatusCode::from_u16(problem.document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("Content-Type", HeaderValue::from_static("application/problem+json"));
    headers.insert("X-Response-Time", HeaderValue::from_static("0.000ms"));
    if let Ok(id) = HeaderValue::from_str(&Uuid::now_v7().to_string()) {
        headers.insert("X-Request-Id", id);
    }
    response
}
