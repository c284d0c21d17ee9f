//! `POST /v1/votes/batch`: many votes, handed to the log one by one while the body still arrives.

use rocket::{
    Request, Response, State,
    http::{ContentType, Status},
    post,
    response::Responder,
};
use serde::Serialize;
use serde_json::value::RawValue;
use service::{
    door::{Line, MeteredDoor, Outcome},
    http::{Problem, RequestBody},
};
use tokio::time::Instant;
use votes::{MAX_BATCH_VOTES, MAX_VOTE_BYTES, Reason, Refusal, VoteRequest};

use crate::{
    body::{Body, Patience},
    headers::VoteHeaders,
    openapi::{BatchItem, VoteBody},
    receipt::Receipts,
    split::{Element, Splitter},
};

/// Casts up to 10 000 votes, and answers for each, in order: a receipt, or a problem.
///
/// Votes are on the log as soon as they were read, so a batch is no transaction. Give each vote its own `vote_id`, and after
/// anything unclear send the batch again. A last problem without a vote of its own says that what follows was not read.
#[utoipa::path(
    tag = "votes",
    params(("traceparent" = Option<String>, Header, description = "W3C trace context, carried along with each vote.")),
    request_body(
        description = "A JSON array of votes, or one vote a line. At most 10 000 votes of 16 KiB each. \
                       `Idempotency-Key` is refused: each vote carries its own `vote_id`.",
        content((Vec<VoteBody> = "application/json"), (String = "application/x-ndjson")),
    ),
    responses(
        (status = 200, description = "What became of each vote, in order.", body = Vec<BatchItem>),
        crate::openapi::BatchRefusals,
    ),
)]
#[post("/v1/votes/batch")]
pub(crate) async fn cast_votes(
    headers: VoteHeaders<'_>,
    body: RequestBody,
    door: &State<MeteredDoor>,
    patience: &State<Patience>,
) -> Answer {
    let mut body = Body::new(body, **patience);
    let line = Line::new((*door).clone(), headers.network);
    let mut batch = Batch { line, receipts: Receipts::new(), retryable: None };
    let end = batch.read(&headers, &mut body).await;
    while let Some(outcome) = batch.line.next().await {
        batch.push(outcome);
    }
    match end {
        Ok(()) => batch.answer(),
        Err(refusal) => {
            body.drain(&refusal).await;
            door.refuse(&refusal);
            batch.answer_broken(refusal)
        }
    }
}

struct Batch {
    line: Line,
    receipts: Receipts,
    /// The first vote that was refused for a reason that passes.
    retryable: Option<Refusal>,
}

impl Batch {
    /// Casts the body's votes as they come, until its end.
    ///
    /// # Errors
    /// Why what follows can't be read.
    async fn read(&mut self, headers: &VoteHeaders<'_>, body: &mut Body) -> Result<(), Refusal> {
        let framing = headers.framing()?;
        headers.has_no_key()?;
        let mut splitter = Splitter::new(framing);
        let mut votes = 0;
        loop {
            let has_more = self.read_chunk(body, splitter.buffer()).await?;
            loop {
                let element = match splitter.next_element()? {
                    None if has_more => break,
                    None => splitter.finish()?,
                    element => element,
                };
                let Some(element) = element else { return Ok(()) };
                votes += 1;
                if votes > MAX_BATCH_VOTES {
                    let detail = format!("a batch has at most {MAX_BATCH_VOTES} votes");
                    return Err(Refusal::new(Reason::TooLarge, detail));
                }
                self.cast(headers, element).await;
            }
        }
    }

    /// Waits for the body, and takes the receipts that come meanwhile.
    async fn read_chunk(&mut self, body: &mut Body, buffer: &mut Vec<u8>) -> Result<bool, Refusal> {
        let since = Instant::now();
        loop {
            tokio::select! {
                biased;
                has_more = body.chunk(buffer, since) => return has_more,
                Some(outcome) = self.line.next(), if !self.line.is_empty() => self.push(outcome),
            }
        }
    }

    async fn cast(&mut self, headers: &VoteHeaders<'_>, element: Element<'_>) {
        let read = || match element {
            Element::Vote(bytes) => Ok(headers.complete_one_of_many(VoteRequest::from_json(bytes)?)),
            Element::Oversized => {
                Err(Refusal::new(Reason::TooLarge, format!("a vote has at most {MAX_VOTE_BYTES} bytes")))
            }
        };
        while !self.line.has_room() || self.line.cast(read()).is_err() {
            if let Some(outcome) = self.line.next().await {
                self.push(outcome);
            }
        }
    }

    fn push(&mut self, outcome: Outcome) {
        if let Err(refusal) = &outcome
            && refusal.reason.is_retryable()
            && self.retryable.is_none()
        {
            self.retryable = Some(refusal.clone());
        }
        self.receipts.push(outcome);
    }

    fn answer(mut self) -> Answer {
        let votes = self.receipts.json();
        match self.retryable {
            Some(refusal) if self.receipts.accepted == 0 => {
                Answer::Problem(Refusal { vote_id: None, ..refusal }.into(), Some(votes))
            }
            _ => Answer::Votes(votes),
        }
    }

    fn answer_broken(mut self, refusal: Refusal) -> Answer {
        let none_published = self.receipts.accepted == 0 && self.retryable.is_none();
        if none_published && refusal.reason != Reason::TooLarge {
            return Answer::Problem(refusal.into(), None);
        }
        let detail = format!("{}; what follows was not read", refusal.detail);
        self.receipts.push(Err(Refusal { detail, ..refusal }));
        self.answer()
    }
}

/// What a batch is answered with.
pub(crate) enum Answer {
    /// 200 and what became of each vote.
    Votes(Vec<u8>),
    /// The batch as a whole failed. Where votes were cast, what became of each goes along: the log may have some of them all
    /// the same, and then only their ids make it safe to cast them again.
    Problem(Problem, Option<Vec<u8>>),
}

impl<'r> Responder<'r, 'static> for Answer {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        let (mut response, body) = match self {
            Self::Votes(votes) => (Response::build().header(ContentType::JSON).finalize(), votes),
            Self::Problem(problem, None) => return problem.respond_to(request),
            Self::Problem(problem, Some(votes)) => {
                let body = with_votes(&problem, &votes).map_err(|_| Status::InternalServerError)?;
                (problem.respond_to(request)?, body)
            }
        };
        response.set_sized_body(body.len(), std::io::Cursor::new(body));
        response.set_max_chunk_size(64 * 1024);
        Ok(response)
    }
}

fn with_votes(problem: &Problem, votes: &[u8]) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct WithVotes<'a> {
        #[serde(flatten)]
        problem: &'a Problem,
        votes: &'a RawValue,
    }
    serde_json::to_vec(&WithVotes { problem, votes: serde_json::from_slice(votes)? })
}
