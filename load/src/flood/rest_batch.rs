//! Casts many votes with one request, one per line: `POST /v1/votes/batch`.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    plan::Plan,
    rest::outcome_of_status,
    statistics::Outcome,
    votes::{Bands, DueVote},
    worker::Caster,
};
use crate::http::Http;

pub(super) struct RestBatch {
    http: Http,
    body: BytesMut,
}

impl RestBatch {
    pub(super) async fn connect(plan: &Plan) -> Self {
        let mut http =
            Http::new(&plan.url, "/v1/votes/batch", "application/x-ndjson", plan.timeout, Arc::clone(&plan.group));
        http.connect().await;
        Self { http, body: BytesMut::new() }
    }
}

impl Caster for RestBatch {
    async fn cast(&mut self, bands: &Bands, votes: &[DueVote], outcomes: &mut Vec<Outcome>) {
        self.body.reserve(256 * votes.len());
        for vote in votes {
            bands.write_json(vote, &mut self.body);
            self.body.put_u8(b'\n');
        }
        let outcome_of_all = match self.http.post(self.body.split().freeze()).await {
            Ok((status, body)) if status.is_success() => match parse_response(&body, votes, outcomes) {
                Ok(()) => return,
                Err(problem) => Outcome::Failed { reason: format!("{status} {problem}") },
            },
            Ok((status, body)) => outcome_of_status(status, &body),
            Err(reason) => Outcome::Failed { reason },
        };
        outcomes.resize(votes.len(), outcome_of_all);
    }
}

/// An item of the response: a receipt or a problem. Only a problem has a status.
#[derive(Deserialize)]
struct BatchItem<'a> {
    vote_id: Option<&'a str>,
    status: Option<u16>,
    #[serde(borrow)]
    title: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

/// Appends the outcome of each vote to `outcomes`.
///
/// # Errors
/// If the response is not a list with an item for each vote. Then nothing is appended.
fn parse_response(body: &[u8], votes: &[DueVote], outcomes: &mut Vec<Outcome>) -> Result<(), String> {
    let items: Vec<BatchItem> =
        serde_json::from_slice(body).map_err(|error| format!("without a list of receipts: {error}"))?;
    if items.len() != votes.len() {
        return Err(format!("with {} items for {} votes", items.len(), votes.len()));
    }
    outcomes.extend(items.iter().zip(votes).map(|(item, vote)| item.outcome(vote)));
    Ok(())
}

impl BatchItem<'_> {
    fn outcome(&self, vote: &DueVote) -> Outcome {
        match self.status {
            None if self.vote_id.is_some_and(|id| id.parse() == Ok(vote.id)) => Outcome::Acknowledged,
            None => Outcome::Failed { reason: "the receipt is for another vote".to_owned() },
            Some(status) => {
                let texts = [("title", self.title), ("detail", self.detail)];
                let problem: Vec<_> = texts
                    .iter()
                    .filter_map(|(name, text)| text.map(|text| format!("\"{name}\":{}", text.get())))
                    .collect();
                let problem = format!("{{{}}}", problem.join(","));
                outcome_of_status(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), problem.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::flood::votes::{VoteGenerator, Voters};

    #[test]
    fn each_vote_of_a_batch_has_its_own_outcome() {
        let mut generator = VoteGenerator::new(Arc::new(Bands::built_in(None)), Voters::None, 0, 0);
        let votes: Vec<_> = (0..3).map(|_| generator.generate(Instant::now())).collect();
        let receipt =
            |vote: &DueVote| format!(r#"{{"vote_id":"{}","contest":"bands","partition":1,"offset":2}}"#, vote.id);
        let problem = format!(
            r#"{{"type":"/problems/queue-full","title":"Full","status":503,"detail":"come \"again\"","vote_id":"{}"}}"#,
            votes[1].id
        );
        let body = format!("[{},{problem},{}]", receipt(&votes[0]), receipt(&votes[0]));
        let mut outcomes = Vec::new();
        assert_eq!(parse_response(body.as_bytes(), &votes, &mut outcomes), Ok(()));
        let refused = Outcome::Refused { reason: "503 come \"again\"".to_owned(), is_temporary: true };
        let another = Outcome::Failed { reason: "the receipt is for another vote".to_owned() };
        assert_eq!(outcomes, [Outcome::Acknowledged, refused, another]);
        assert!(parse_response(b"[]", &votes, &mut Vec::new()).is_err());
    }
}
