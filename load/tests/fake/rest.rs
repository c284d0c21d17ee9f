//! The fake REST producer.

use std::{io, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::IgnoredAny};
use tokio::{net::TcpListener, time::sleep};

use super::{Reaction, State};

pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let state = Arc::clone(&state);
        let service = service_fn(move |request| respond(request, Arc::clone(&state)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// A vote with all its fields. Like the real producer, the fake does not accept other fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, clippy::struct_field_names)]
struct Vote<'a> {
    name: IgnoredAny,
    album: Option<IgnoredAny>,
    year: Option<IgnoredAny>,
    rank: Option<IgnoredAny>,
    contest: Option<&'a str>,
    voter: Option<&'a str>,
    vote_id: &'a str,
}

/// Responds to a request. An error ends the connection.
async fn respond(request: Request<Incoming>, state: Arc<State>) -> io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let content_type = request.headers()[CONTENT_TYPE].clone();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let (status, body) = match path.as_str() {
        "/v1/votes" => {
            assert_eq!(content_type, "application/json");
            outcome(&body, &state).await?
        }
        "/v1/votes/batch" => {
            assert_eq!(content_type, "application/x-ndjson");
            let mut outcomes = Vec::new();
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                outcomes.push(outcome(line, &state).await?);
            }
            let none_is_published = outcomes.iter().all(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE);
            let bodies: Vec<_> = outcomes.into_iter().map(|(_, body)| body).collect();
            let status = if none_is_published { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            (status, format!("[{}]", bodies.join(",")))
        }
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}

async fn outcome(vote: &[u8], state: &State) -> io::Result<(StatusCode, String)> {
    let vote: Vote = serde_json::from_slice(vote).unwrap();
    let receipt = || {
        let id = vote.vote_id;
        let contest = vote.contest.unwrap_or("bands");
        format!(
            r#"{{"vote_id":"{id}","contest":"{contest}","partition":3,"offset":7,"accepted_at":"2026-11-21T12:00:00Z"}}"#
        )
    };
    let problem = |status: StatusCode, detail: &str| {
        let id = vote.vote_id;
        let code = status.as_u16();
        let body = format!(r#"{{"type":"/t","title":"Title","status":{code},"detail":"{detail}","vote_id":"{id}"}}"#);
        (status, body)
    };
    match state.react(vote.vote_id) {
        Reaction::Accept => {}
        Reaction::RefuseTemporarily => {
            return Ok(problem(StatusCode::SERVICE_UNAVAILABLE, "too many votes are waiting"));
        }
        Reaction::Refuse => return Ok(problem(StatusCode::UNPROCESSABLE_ENTITY, "name: required")),
        Reaction::Stall(time) => sleep(time).await,
        Reaction::Hang => std::future::pending().await,
        Reaction::Disconnect | Reaction::ShutDown => return Err(io::Error::other("disconnected")),
    }
    Ok((StatusCode::ACCEPTED, receipt()))
}
