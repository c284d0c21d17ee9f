//! Casts each vote with a request of its own: `POST /v1/votes`.

use std::sync::Arc;

use bytes::BytesMut;
use hyper::StatusCode;
use serde::Deserialize;

use super::{
    plan::Plan,
    statistics::Outcome,
    votes::{Bands, DueVote},
    worker::Caster,
};
use crate::http::Http;

pub(super) struct Rest {
    http: Http,
    body: BytesMut,
}

impl Rest {
    pub(super) async fn connect(plan: &Plan) -> Self {
        let mut http = Http::new(&plan.url, "/v1/votes", "application/json", plan.timeout, Arc::clone(&plan.group));
        http.connect().await;
        Self { http, body: BytesMut::new() }
    }
}

impl Caster for Rest {
    async fn cast(&mut self, bands: &Bands, votes: &[DueVote], outcomes: &mut Vec<Outcome>) {
        for vote in votes {
            // The previous body was dropped, so this reuses its memory.
            self.body.reserve(1024);
            bands.write_json(vote, &mut self.body);
            outcomes.push(match self.http.post(self.body.split().freeze()).await {
                Ok((status, body)) => parse_response(status, &body, vote),
                Err(reason) => Outcome::Failed { reason },
            });
        }
    }
}

#[derive(Deserialize)]
struct Receipt<'a> {
    vote_id: &'a str,
}

/// A problem document of RFC 9457.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// Converts a response to the outcome of its vote.
fn parse_response(status: StatusCode, body: &[u8], vote: &DueVote) -> Outcome {
    if !status.is_success() {
        return outcome_of_status(status, body);
    }
    match serde_json::from_slice::<Receipt>(body) {
        Ok(receipt) if receipt.vote_id.parse() == Ok(vote.id) => Outcome::Acknowledged,
        Ok(_) => Outcome::Failed { reason: format!("{status} with the receipt for another vote") },
        Err(error) => Outcome::Failed { reason: format!("{status} without a receipt: {error}") },
    }
}

/// Converts a response with a status other than 2xx to the outcome of the votes in its request.
pub(super) fn outcome_of_status(status: StatusCode, body: &[u8]) -> Outcome {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let reason = match problem.detail.or(problem.title) {
        Some(detail) => format!("{} {detail}", status.as_u16()),
        None => status.to_string(),
    };
    if status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE {
        let is_temporary = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        Outcome::Refused { reason, is_temporary }
    } else {
        Outcome::Failed { reason }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::flood::votes::{VoteGenerator, Voters};

    #[test]
    fn only_a_receipt_for_this_vote_is_an_acknowledgement() {
        let vote = VoteGenerator::new(Arc::new(Bands::built_in(None)), Voters::None, 0, 0).generate(Instant::now());
        let receipt = |id: uuid::Uuid| format!(r#"{{"vote_id":"{id}","contest":"bands","partition":0,"offset":7}}"#);
        let outcome = |status, body: &str| parse_response(status, body.as_bytes(), &vote);
        assert_eq!(outcome(StatusCode::ACCEPTED, &receipt(vote.id)), Outcome::Acknowledged);
        for body in [receipt(uuid::Uuid::now_v7()), "<html>".to_owned(), String::new()] {
            assert!(matches!(outcome(StatusCode::ACCEPTED, &body), Outcome::Failed { .. }), "{body}");
        }
    }

    #[test]
    fn a_problem_has_a_reason_and_may_be_temporary() {
        let problem = br#"{"type":"x","title":"T","status":503,"detail":"too many votes are waiting"}"#;
        let refused = |reason: &str, is_temporary| Outcome::Refused { reason: reason.to_owned(), is_temporary };
        assert_eq!(
            outcome_of_status(StatusCode::SERVICE_UNAVAILABLE, problem),
            refused("503 too many votes are waiting", true)
        );
        assert_eq!(outcome_of_status(StatusCode::UNPROCESSABLE_ENTITY, br#"{"title":"T"}"#), refused("422 T", false));
        assert_eq!(outcome_of_status(StatusCode::NOT_FOUND, b""), refused("404 Not Found", false));
        let gateway = Outcome::Failed { reason: "502 Bad Gateway".to_owned() };
        assert_eq!(outcome_of_status(StatusCode::BAD_GATEWAY, b"<html>"), gateway);
    }
}
