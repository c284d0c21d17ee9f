//! Many votes a request: `POST /v1/votes/batch`, a line each.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    args::Plan,
    http::Http,
    ledger::Answer,
    rest::refusal,
    votes::{Bands, DueVote},
    worker::Caster,
};

pub(super) struct RestBatch {
    http: Http,
    body: BytesMut,
}

impl RestBatch {
    pub(super) async fn connect(plan: &Plan) -> Self {
        let mut http =
            Http::new(&plan.url, "/v1/votes/batch", "application/x-ndjson", plan.timeout, Arc::clone(&plan.wire));
        http.connect().await;
        Self { http, body: BytesMut::new() }
    }
}

impl Caster for RestBatch {
    async fn cast(&mut self, bands: &Bands, votes: &[DueVote], answers: &mut Vec<Answer>) {
        self.body.reserve(256 * votes.len());
        for vote in votes {
            bands.write_json(vote, &mut self.body);
            self.body.put_u8(b'\n');
        }
        let all = match self.http.post(self.body.split().freeze()).await {
            Ok((status, body)) if status.is_success() => match read(&body, votes, answers) {
                Ok(()) => return,
                Err(problem) => Answer::Failed { reason: format!("{status} {problem}") },
            },
            Ok((status, body)) => refusal(status, &body),
            Err(reason) => Answer::Failed { reason },
        };
        answers.resize(votes.len(), all);
    }
}

/// A receipt, or a problem, which has a status.
#[derive(Deserialize)]
struct Outcome<'a> {
    vote_id: Option<&'a str>,
    status: Option<u16>,
    #[serde(borrow)]
    title: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

fn read(body: &[u8], votes: &[DueVote], answers: &mut Vec<Answer>) -> Result<(), String> {
    let outcomes: Vec<Outcome> =
        serde_json::from_slice(body).map_err(|error| format!("without a list of receipts: {error}"))?;
    if outcomes.len() != votes.len() {
        return Err(format!("with {} outcomes for {} votes", outcomes.len(), votes.len()));
    }
    answers.extend(outcomes.iter().zip(votes).map(|(outcome, vote)| outcome.answer(vote)));
    Ok(())
}

impl Outcome<'_> {
    fn answer(&self, vote: &DueVote) -> Answer {
        match self.status {
            None if self.vote_id.is_some_and(|id| id.parse() == Ok(vote.id)) => Answer::Acknowledged,
            None => Answer::Failed { reason: "the receipt of another vote".to_owned() },
            Some(status) => {
                let texts = [("title", self.title), ("detail", self.detail)];
                let problem: Vec<_> = texts
                    .iter()
                    .filter_map(|(name, text)| text.map(|text| format!("\"{name}\":{}", text.get())))
                    .collect();
                let problem = format!("{{{}}}", problem.join(","));
                refusal(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), problem.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::flood::{args::Voters, votes::Draw};

    #[test]
    fn each_vote_of_a_batch_gets_its_own_answer() {
        let mut draw = Draw::new(Arc::new(Bands::built_in(None)), Voters::Nobody, 0, 0);
        let votes: Vec<_> = (0..3).map(|_| draw.draw(Instant::now())).collect();
        let receipt =
            |vote: &DueVote| format!(r#"{{"vote_id":"{}","contest":"bands","partition":1,"offset":2}}"#, vote.id);
        let problem = format!(
            r#"{{"type":"/problems/queue-full","title":"Full","status":503,"detail":"come \"again\"","vote_id":"{}"}}"#,
            votes[1].id
        );
        let body = format!("[{},{problem},{}]", receipt(&votes[0]), receipt(&votes[0]));
        let mut answers = Vec::new();
        assert_eq!(read(body.as_bytes(), &votes, &mut answers), Ok(()));
        let refused = Answer::Refused { reason: "503 come \"again\"".to_owned(), is_passing: true };
        let another = Answer::Failed { reason: "the receipt of another vote".to_owned() };
        assert_eq!(answers, [Answer::Acknowledged, refused, another]);
        assert!(read(b"[]", &votes, &mut Vec::new()).is_err());
    }
}
