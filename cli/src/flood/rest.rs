//! One vote a request: `POST /v1/votes`.

use std::sync::Arc;

use bytes::BytesMut;
use hyper::StatusCode;
use serde::Deserialize;

use super::{
    args::Plan,
    http::Http,
    ledger::Answer,
    votes::{Bands, DueVote},
    worker::Caster,
};

pub(super) struct Rest {
    http: Http,
    body: BytesMut,
}

impl Rest {
    pub(super) async fn connect(plan: &Plan) -> Self {
        let mut http = Http::new(&plan.url, "/v1/votes", "application/json", plan.timeout, Arc::clone(&plan.wire));
        http.connect().await;
        Self { http, body: BytesMut::new() }
    }
}

impl Caster for Rest {
    async fn cast(&mut self, bands: &Bands, votes: &[DueVote], answers: &mut Vec<Answer>) {
        for vote in votes {
            // The last body is gone by now, so this is the same memory again.
            self.body.reserve(1024);
            bands.write_json(vote, &mut self.body);
            answers.push(match self.http.post(self.body.split().freeze()).await {
                Ok((status, body)) => read(status, &body, vote),
                Err(reason) => Answer::Failed { reason },
            });
        }
    }
}

#[derive(Deserialize)]
struct Receipt<'a> {
    vote_id: &'a str,
}

/// A problem of RFC 9457.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

fn read(status: StatusCode, body: &[u8], vote: &DueVote) -> Answer {
    if !status.is_success() {
        return refusal(status, body);
    }
    match serde_json::from_slice::<Receipt>(body) {
        Ok(receipt) if receipt.vote_id.parse() == Ok(vote.id) => Answer::Acknowledged,
        Ok(_) => Answer::Failed { reason: format!("{status} with the receipt of another vote") },
        Err(error) => Answer::Failed { reason: format!("{status} without a receipt: {error}") },
    }
}

/// What a status other than a success says of the request's votes.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> Answer {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let reason = match problem.detail.or(problem.title) {
        Some(detail) => format!("{} {detail}", status.as_u16()),
        None => status.to_string(),
    };
    if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE {
        let is_passing = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        Answer::Refused { reason, is_passing }
    } else {
        Answer::Failed { reason }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::flood::{args::Voters, votes::Draw};

    #[test]
    fn only_the_receipt_of_this_vote_is_an_acknowledgement() {
        let vote = Draw::new(Arc::new(Bands::built_in(None)), Voters::Nobody, 0, 0).draw(Instant::now());
        let receipt = |id: uuid::Uuid| format!(r#"{{"vote_id":"{id}","contest":"bands","partition":0,"offset":7}}"#);
        let read = |status, body: &str| read(status, body.as_bytes(), &vote);
        assert_eq!(read(StatusCode::ACCEPTED, &receipt(vote.id)), Answer::Acknowledged);
        for body in [receipt(uuid::Uuid::now_v7()), "<html>".to_owned(), String::new()] {
            assert!(matches!(read(StatusCode::ACCEPTED, &body), Answer::Failed { .. }), "{body}");
        }
    }

    #[test]
    fn a_problem_says_why_and_whether_it_passes() {
        let problem = br#"{"type":"x","title":"T","status":503,"detail":"too many votes are waiting"}"#;
        let refused = |reason: &str, is_passing| Answer::Refused { reason: reason.to_owned(), is_passing };
        assert_eq!(refusal(StatusCode::SERVICE_UNAVAILABLE, problem), refused("503 too many votes are waiting", true));
        assert_eq!(refusal(StatusCode::UNPROCESSABLE_ENTITY, br#"{"title":"T"}"#), refused("422 T", false));
        assert_eq!(refusal(StatusCode::NOT_FOUND, b""), refused("404 Not Found", false));
        let gateway = Answer::Failed { reason: "502 Bad Gateway".to_owned() };
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>"), gateway);
    }
}
