//! The connections of our HTTP servers: hyper's, with bounds, and Rocket behind them.
//!
//! Rocket 0.5's own loop waits without end for a request's head and then for the first 14 bytes of its body, before any code
//! of ours runs, so who sends less is never answered and never leaves. It drops header values that are not UTF-8, and while
//! an idle connection is open it holds every shutdown for its whole grace. None of that can be configured. So connections
//! are accepted here, and requests reach Rocket by its local client, the one public way in that does not listen by itself.
//! Bodies stay outside: a route takes its own with [`RequestBody`].

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Frame, Incoming},
    header::{HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rocket::{
    Request,
    http::{Header, Status},
    local::asynchronous::{Client, LocalRequest, LocalResponse},
    request::{FromRequest, Outcome},
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

use crate::http::Problem;

/// How long a connection may take to send a request's head, or idle before one.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long open requests may take to end after shutdown began: far longer than any vote does.
const GRACE: Duration = Duration::from_secs(2);

/// Connections that are open at the same time. Those beyond it wait in the listener's backlog.
const CONNECTIONS: usize = 8_192;

/// Answers the listener's connections until shutdown, then lets open requests end.
pub(crate) async fn serve(listener: TcpListener, client: Client, shutdown: CancellationToken) {
    let client = Arc::new(client);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, remote)) => {
                    connections.spawn(connection(client.clone(), stream, remote, shutdown.clone()));
                }
                // Mostly too many open files: others have to close first.
                Err(error) => {
                    tracing::warn!(%error, "accepts no connection");
                    sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    client.rocket().shutdown().notify();
    let ended = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        // Everything that was acknowledged is durable.
        tracing::warn!(connections = connections.len(), "left with connections still open");
    }
}

async fn connection(client: Arc<Client>, stream: TcpStream, remote: SocketAddr, shutdown: CancellationToken) {
    // Answers are written whole, so there is nothing to wait for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(client.clone(), remote, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
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
        tracing::debug!(%remote, %error, "connection broke");
    }
}

type Body = Either<Full<Bytes>, StreamBody<ReceiverStream<Result<Frame<Bytes>, std::io::Error>>>>;
type Answer = Response<Body>;

async fn answer(
    client: Arc<Client>,
    remote: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (sender, mut answer) = oneshot::channel();
    // An answer borrows from the client, so one future holds both until its last byte is sent.
    let mut sending = Box::pin(async move {
        match local_request(&client, remote, request) {
            Ok(request) => send(request.dispatch().await, sender).await,
            Err(problem) => _ = sender.send(problem_answer(&problem)),
        }
    });
    let answer = tokio::select! {
        biased;
        () = &mut sending => answer.await,
        // The rest of the body is sent as the connection takes it.
        head = &mut answer => {
            tokio::spawn(sending);
            head
        }
    };
    let failed = || problem_answer(&Problem::plain(Status::InternalServerError, "the request was not answered"));
    Ok(answer.unwrap_or_else(|_| failed()))
}

fn local_request(
    client: &Client,
    remote: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<LocalRequest<'_>, Problem> {
    let bad = |detail: String| Problem::plain(Status::BadRequest, detail);
    let (head, body) = request.into_parts();
    let method = head.method.as_str().parse().map_err(|()| bad(format!("there is no method {}", head.method)))?;
    let uri = head.uri.path_and_query().map_or("/", |uri| uri.as_str()).to_owned();
    let mut request = client.req(method, uri);
    for (name, value) in &head.headers {
        let value = str::from_utf8(value.as_bytes()).map_err(|_| bad(format!("the header {name} is not UTF-8")))?;
        request.add_header(Header::new(name.as_str().to_owned(), value.to_owned()));
    }
    request.set_remote(remote);
    request.inner().local_cache(|| Slot(Mutex::new(Some(RequestBody(body)))));
    Ok(request)
}

/// Sends an answer: whole, if it says its length, else as it comes.
async fn send(mut response: LocalResponse<'_>, answer: oneshot::Sender<Answer>) {
    let head = head(&response);
    let length = response.headers().get_one("Content-Length").and_then(|length| length.parse().ok());
    if let Some(length) = length {
        let mut body = Vec::with_capacity(length);
        // Without its body the connection is closed, and the client sees that the answer is not whole.
        if response.read_to_end(&mut body).await.is_ok() {
            let _ = answer.send(finish(head, Either::Left(Full::from(body))));
        }
        return;
    }
    let (sender, receiver) = mpsc::channel(1);
    if answer.send(finish(head, Either::Right(StreamBody::new(ReceiverStream::new(receiver))))).is_err() {
        return;
    }
    let mut chunk = BytesMut::new();
    loop {
        chunk.reserve(CHUNK);
        let read = tokio::select! {
            read = response.read_buf(&mut chunk) => read,
            () = sender.closed() => return,
        };
        let frame = match read {
            Ok(0) => return,
            Ok(_) => Ok(Frame::data(chunk.split().freeze())),
            Err(error) => Err(error),
        };
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}

/// Bytes that are read at a time of an answer without a length.
const CHUNK: usize = 4 * 1024;

type Head = (StatusCode, HeaderMap);

/// Into a map that has room for all headers: growing it as they come costs more than filling it.
fn head(response: &LocalResponse<'_>) -> Result<Head, hyper::http::Error> {
    let mut headers = HeaderMap::with_capacity(response.headers().len());
    for header in response.headers().iter() {
        let name = HeaderName::from_bytes(header.name().as_str().as_bytes())?;
        headers.append(name, HeaderValue::from_str(header.value())?);
    }
    Ok((StatusCode::from_u16(response.status().code)?, headers))
}

fn finish(head: Result<Head, hyper::http::Error>, body: Body) -> Answer {
    match head {
        Ok((status, headers)) => {
            let mut answer = Response::new(body);
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            answer
        }
        Err(error) => problem_answer(&Problem::plain(
            Status::InternalServerError,
            format!("the answer could not be written: {error}"),
        )),
    }
}

/// The answer to what never reaches Rocket.
fn problem_answer(problem: &Problem) -> Answer {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert("Content-Type", HeaderValue::from_static("application/problem+json"));
    headers.insert("X-Response-Time", HeaderValue::from_static("0.000ms"));
    if let Ok(id) = HeaderValue::from_str(&Uuid::now_v7().to_string()) {
        headers.insert("X-Request-Id", id);
    }
    answer
}

/// The body of a request, as it arrives. One route can take it, once.
#[derive(Debug)]
pub struct RequestBody(Incoming);

impl RequestBody {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// If the connection breaks before the body's end, or its transfer encoding is broken.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            match self.0.frame().await?.map(Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Where a body waits for the route that takes it.
struct Slot(Mutex<Option<RequestBody>>);

#[rocket::async_trait]
impl<'r> FromRequest<'r> for RequestBody {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let slot = request.local_cache(|| Slot(Mutex::new(None)));
        match slot.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(body) => Outcome::Success(body),
            None => Outcome::Error((Status::InternalServerError, ())),
        }
    }
}
