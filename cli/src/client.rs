//! Asks the services.

use std::path::Path;

use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use service::token::ReadToken;
use tokio::net::TcpStream;

/// The most bytes of an answer: 100 000 rate windows are 4 MB.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0:?} is no URL of an Ovation service; give one like http://127.0.0.1:8080")]
    Url(String),
    #[error("can't reach {url}: {problem}; does it run, and is this the right address?")]
    Unreachable { url: String, problem: String },
    #[error("{url} answered {status}: {detail}")]
    Refused { url: String, status: StatusCode, detail: String },
    #[error("the token of {0}: {1}")]
    Token(String, String),
    #[error("{url} answered something else than expected: {problem}")]
    Unexpected { url: String, problem: String },
}

#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: String,
}

/// Gets `path` (with its query) of the service at `base`.
pub(crate) async fn get<T: DeserializeOwned>(base: &str, path: &str) -> Result<T, ClientError> {
    let (url, body) = get_bytes(base, path).await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// As [`get`], with the [`token`] if there is one.
pub(crate) async fn get_as<T: DeserializeOwned>(
    token_file: Option<&Path>,
    base: &str,
    path: &str,
) -> Result<T, ClientError> {
    let (url, body) = succeeded(ask(base, path, Sent::Nothing, token(token_file)?.as_ref()).await?)?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// Posts a body of this media type as it comes, with the token as [`get_as`] has it.
pub(crate) async fn upload<T: DeserializeOwned>(
    token_file: Option<&Path>,
    base: &str,
    path: &str,
    media_type: &str,
    body: Upload,
) -> Result<T, ClientError> {
    let sent = Sent::Body { media_type, body };
    let (url, body) = succeeded(ask(base, path, sent, token(token_file)?.as_ref()).await?)?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

/// A body that is larger than memory.
pub(crate) type Upload = UnsyncBoxBody<Bytes, std::io::Error>;

/// What goes with a question.
enum Sent<'a> {
    Nothing,
    Body { media_type: &'a str, body: Upload },
}

impl Sent<'_> {
    fn json(json: String) -> Self {
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
        Self::Body { media_type: "application/json", body }
    }
}

/// The token of a file, or of the environment as services take it, if there is one.
pub(crate) fn token(file: Option<&Path>) -> Result<Option<ReadToken>, ClientError> {
    const VARIABLE: &str = "OVATION_READ_TOKEN";
    match (file, std::env::var(VARIABLE)) {
        (Some(file), _) => read_token(file).map(Some),
        (None, Ok(token)) => {
            let token = ReadToken::new(&token);
            token.map(Some).map_err(|problem| ClientError::Token(VARIABLE.to_owned(), problem))
        }
        (None, Err(_)) => Ok(None),
    }
}

fn read_token(path: &Path) -> Result<ReadToken, ClientError> {
    let problem = |problem: String| ClientError::Token(path.display().to_string(), problem);
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    ReadToken::new(text.trim_ascii_end()).map_err(problem)
}

/// Gets `path` of the service at `base`: the whole URL, and the body as it is.
pub(crate) async fn get_bytes(base: &str, path: &str) -> Result<(String, Bytes), ClientError> {
    succeeded(ask(base, path, Sent::Nothing, None).await?)
}

/// Posts JSON to `path` of the service at `base`.
pub(crate) async fn post<T: DeserializeOwned>(base: &str, path: &str, json: String) -> Result<T, ClientError> {
    post_as(None, base, path, json).await
}

/// As [`post`], with a token, if there is one.
pub(crate) async fn post_as<T: DeserializeOwned>(
    token: Option<&ReadToken>,
    base: &str,
    path: &str,
    json: String,
) -> Result<T, ClientError> {
    let (url, body) = succeeded(ask(base, path, Sent::json(json), token).await?)?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Unexpected { url, problem: error.to_string() })
}

fn succeeded((url, status, body): (String, StatusCode, Bytes)) -> Result<(String, Bytes), ClientError> {
    if !status.is_success() {
        let problem = serde_json::from_slice::<Problem>(&body);
        let detail = problem.map_or_else(|_| String::new(), |problem| format!("{}: {}", problem.title, problem.detail));
        return Err(ClientError::Refused { url, status, detail });
    }
    Ok((url, body))
}

/// As [`get_bytes`], whatever the status is: where a body says the same in more words.
pub(crate) async fn get_any(base: &str, path: &str) -> Result<(String, Bytes), ClientError> {
    let (url, _, body) = ask(base, path, Sent::Nothing, None).await?;
    Ok((url, body))
}

/// Gets, or posts.
async fn ask(
    base: &str,
    path: &str,
    sent: Sent<'_>,
    token: Option<&ReadToken>,
) -> Result<(String, StatusCode, Bytes), ClientError> {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let uri: Uri = url.parse().map_err(|_| ClientError::Url(base.to_owned()))?;
    let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(ClientError::Url(base.to_owned()));
    };
    let (status, body) = fetch(&uri, host, sent, token)
        .await
        .map_err(|error| ClientError::Unreachable { url: url.clone(), problem: error.to_string() })?;
    Ok((url, status, body))
}

async fn fetch(
    uri: &Uri,
    host: &str,
    sent: Sent<'_>,
    token: Option<&ReadToken>,
) -> Result<(StatusCode, Bytes), service::program::Failure> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let (request, body) = match sent {
        Sent::Nothing => (Request::get(path), Empty::new().map_err(|never| match never {}).boxed_unsync()),
        Sent::Body { media_type, body } => (Request::post(path).header(CONTENT_TYPE, media_type), body),
    };
    let request = match token {
        Some(token) => request.header(AUTHORIZATION, token.authorization()),
        None => request,
    };
    let request = request.header(HOST, authority).body(body)?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

/// Text as a part of a path or a query.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
