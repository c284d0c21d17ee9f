//! Sends requests to the services over HTTP/1.1: for JSON, for the text of `/metrics`, and for uploads. Each request
//! opens a connection of its own.

use std::error::Error;

use api::Problem;
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// The maximum size of a response, in bytes. 100 000 rate windows are 4 MB.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The base URL is not an `http` URL.
    #[error("{0:?} is not the URL of an Ovation service; give one like http://127.0.0.1:8080")]
    Url(String),
    /// The connection could not be opened, or it was lost.
    #[error("can't reach {url}: {problem}; check that the service runs and that the address is right")]
    Unreachable {
        /// The whole URL.
        url: String,
        /// Why the connection failed.
        problem: String,
    },
    /// The status of the response is not 2xx.
    #[error("{url} answered {status}: {detail}")]
    Refused {
        /// The whole URL.
        url: String,
        /// The status of the response.
        status: StatusCode,
        /// The title and the detail of the problem in the response (RFC 9457), or an empty text.
        detail: String,
    },
    /// The body of the response does not have the expected type.
    #[error("{url} sent an unexpected response: {problem}")]
    Unexpected {
        /// The whole URL.
        url: String,
        /// The error of the JSON parser.
        problem: String,
    },
}

/// Sends a GET request for `path`, which may have a query, to the service at `base`. Parses the response as JSON.
pub async fn get<T: DeserializeOwned>(base: &str, path: &str) -> Result<T, ClientError> {
    let (url, body) = get_bytes(base, path).await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// Like [`get`], with this value of the header `Authorization`, if it is given.
pub async fn get_as<T: DeserializeOwned>(
    authorization: Option<&str>,
    base: &str,
    path: &str,
) -> Result<T, ClientError> {
    let (url, body) = check_status(send(base, path, RequestBody::Empty, authorization).await?)?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// Sends a POST request with a body of this media type, while the body is read. `authorization` is the value of the
/// header `Authorization`, if there is one.
pub async fn upload<T: DeserializeOwned>(
    authorization: Option<&str>,
    base: &str,
    path: &str,
    media_type: &str,
    body: Upload,
) -> Result<T, ClientError> {
    let upload = RequestBody::Upload { media_type, body };
    let (url, body) = check_status(send(base, path, upload, authorization).await?)?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// A body that may be larger than memory.
pub type Upload = UnsyncBoxBody<Bytes, std::io::Error>;

/// The body of a request.
enum RequestBody<'a> {
    Empty,
    Upload { media_type: &'a str, body: Upload },
}

impl RequestBody<'_> {
    fn json(json: String) -> Self {
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
        Self::Upload { media_type: "application/json", body }
    }
}

/// Sends a GET request for `path` to the service at `base`. Returns the whole URL and the unparsed body.
pub async fn get_bytes(base: &str, path: &str) -> Result<(String, Bytes), ClientError> {
    check_status(send(base, path, RequestBody::Empty, None).await?)
}

/// Sends a POST request with JSON for `path` to the service at `base`. Parses the response as JSON.
pub async fn post<T: DeserializeOwned>(base: &str, path: &str, json: String) -> Result<T, ClientError> {
    post_as(None, base, path, json).await
}

/// Like [`post`], with this value of the header `Authorization`, if it is given.
pub async fn post_as<T: DeserializeOwned>(
    authorization: Option<&str>,
    base: &str,
    path: &str,
    json: String,
) -> Result<T, ClientError> {
    let (url, body) = check_status(send(base, path, RequestBody::json(json), authorization).await?)?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// Returns the URL and the body, or an error if the status is not 2xx.
fn check_status((url, status, body): (String, StatusCode, Bytes)) -> Result<(String, Bytes), ClientError> {
    if !status.is_success() {
        let problem = serde_json::from_slice::<Problem>(&body);
        let detail = problem.map_or_else(|_| String::new(), |problem| format!("{}: {}", problem.title, problem.detail));
        return Err(ClientError::Refused { url, status, detail });
    }
    Ok((url, body))
}

/// Like [`get_bytes`], but returns the body for any status. It is for responses whose body contains the result, like
/// `/health`.
pub async fn get_any(base: &str, path: &str) -> Result<(String, Bytes), ClientError> {
    let (url, _, body) = send(base, path, RequestBody::Empty, None).await?;
    Ok((url, body))
}

/// Sends a request: `GET` without a body, `POST` with one.
async fn send(
    base: &str,
    path: &str,
    body: RequestBody<'_>,
    authorization: Option<&str>,
) -> Result<(String, StatusCode, Bytes), ClientError> {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let uri: Uri = url.parse().map_err(|_| ClientError::Url(base.to_owned()))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(ClientError::Url(base.to_owned()));
    };
    let (status, body) = fetch(&uri, host, body, authorization)
        .await
        .map_err(|error| ClientError::Unreachable { url: url.clone(), problem: error.to_string() })?;
    Ok((url, status, body))
}

async fn fetch(
    uri: &Uri,
    host: &str,
    body: RequestBody<'_>,
    authorization: Option<&str>,
) -> Result<(StatusCode, Bytes), Box<dyn Error + Send + Sync>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let (request, body) = match body {
        RequestBody::Empty => (Request::get(path), Empty::new().map_err(|never| match never {}).boxed_unsync()),
        RequestBody::Upload { media_type, body } => (Request::post(path).header(CONTENT_TYPE, media_type), body),
    };
    let request = match authorization {
        Some(authorization) => request.header(AUTHORIZATION, authorization),
        None => request,
    };
    let request = request.header(HOST, authority).body(body)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}
