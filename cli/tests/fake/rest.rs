//! The REST door.

use std::{io, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::IgnoredAny};
use tokio::{net::TcpListener, time::sleep};

use super::{Act, Memory};

pub(super) async fn serve(listener: TcpListener, memory: Arc<Memory>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let memory = Arc::clone(&memory);
        let service = service_fn(move |request| answer(request, Arc::clone(&memory)));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// All fields that a vote may have, as the real doors refuse others.
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

/// An error ends the connection.
async fn answer(request: Request<Incoming>, memory: Arc<Memory>) -> io::Result<Response<Full<Bytes>>> {
    let path = request.uri().path().to_owned();
    let content_type = request.headers()[CONTENT_TYPE].clone();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let (status, body) = match path.as_str() {
        "/v1/votes" => {
            assert_eq!(content_type, "application/json");
            outcome(&body, &memory).await?
        }
        "/v1/votes/batch" => {
            assert_eq!(content_type, "application/x-ndjson");
            let mut outcomes = Vec::new();
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                outcomes.push(outcome(line, &memory).await?);
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

async fn outcome(vote: &[u8], memory: &Memory) -> io::Result<(StatusCode, String)> {
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
    match memory.act(vote.vote_id) {
        Act::Accept => {}
        Act::RefuseForNow => return Ok(problem(StatusCode::SERVICE_UNAVAILABLE, "too many votes are waiting")),
        Act::Refuse => return Ok(problem(StatusCode::UNPROCESSABLE_ENTITY, "name: required")),
        Act::Stall(time) => sleep(time).await,
        Act::Hang => std::future::pending().await,
        Act::Cut | Act::Leave => return Err(io::Error::other("cut")),
    }
    Ok((StatusCode::ACCEPTED, receipt()))
}
