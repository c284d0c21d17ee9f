//! `POST /v1/votes/batch`: casts many votes. Each vote is submitted to the log as soon as it has arrived, even if the
//! rest of the body has not.

use api::{BatchItem, Vote};
use rocket::{
    Request, Response, State,
    http::{ContentType, Status},
    post,
    response::Responder,
};
use serde::Serialize;
use serde_json::value::RawValue;
use service::{
    http::{Problem, RequestBody},
    ingest::{MeteredIngest, Outcome, VotePipeline},
};
use tokio::time::Instant;
use votes::{MAX_BATCH_VOTES, Reason, Refusal, VoteRequest, vote_too_large};

use crate::{
    body::{Body, BodyTimeouts},
    headers::VoteHeaders,
    receipt::Receipts,
    split::{Element, Splitter},
};

/// Casts up to 10 000 votes.
///
/// The response has a receipt or a problem for each vote, in order. A batch is not a transaction: each vote is put on
/// the log as soon as it is read. Give each vote its own `vote_id`. Then you can send the whole batch again if an
/// outcome is unclear. If the body can't be read to its end, the last item is a problem with the reason. The votes
/// after it were not read.
#[utoipa::path(
    tag = "votes",
    params(
        ("traceparent" = Option<String>, Header, description =
            "W3C trace context. The vote log stores it with each vote."),
    ),
    request_body(
        description = "A JSON array of votes, or one vote per line. At most 10 000 votes of 16 KiB each. \
                       `Idempotency-Key` is refused: each vote has its own `vote_id`.",
        content((Vec<Vote> = "application/json"), (String = "application/x-ndjson")),
    ),
    responses(
        (status = 200, description = "The outcome of each vote, in order.", body = Vec<BatchItem>),
        crate::refusals::BatchRefusals,
    ),
)]
#[post("/v1/votes/batch")]
pub(crate) async fn cast_votes(
    headers: VoteHeaders<'_>,
    body: RequestBody,
    ingest: &State<MeteredIngest>,
    timeouts: &State<BodyTimeouts>,
) -> BatchResponse {
    let mut body = Body::new(body, **timeouts);
    let pipeline = VotePipeline::new((*ingest).clone(), headers.network);
    let mut batch = Batch { pipeline, receipts: Receipts::new(), retryable: None };
    let end = batch.read(&headers, &mut body).await;
    while let Some(outcome) = batch.pipeline.next().await {
        batch.push(outcome);
    }
    match end {
        Ok(()) => batch.into_response(),
        Err(refusal) => {
            body.drain(&refusal).await;
            ingest.count_refusal(&refusal);
            batch.into_interrupted(refusal)
        }
    }
}

struct Batch {
    pipeline: VotePipeline,
    receipts: Receipts,
    /// The first refusal with a temporary reason.
    retryable: Option<Refusal>,
}

impl Batch {
    /// Casts the votes of the body as they arrive, until the end of the body.
    ///
    /// # Errors
    /// If the rest of the body can't be read.
    async fn read(&mut self, headers: &VoteHeaders<'_>, body: &mut Body) -> Result<(), Refusal> {
        let framing = headers.framing()?;
        headers.check_no_key()?;
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

    /// Waits for the next bytes of the body and appends them to `buffer`. Meanwhile, adds the outcomes that arrive to
    /// the receipts. Returns `false` at the end of the body.
    async fn read_chunk(&mut self, body: &mut Body, buffer: &mut Vec<u8>) -> Result<bool, Refusal> {
        let since = Instant::now();
        loop {
            tokio::select! {
                biased;
                has_more = body.chunk(buffer, since) => return has_more,
                Some(outcome) = self.pipeline.next(), if !self.pipeline.is_empty() => self.push(outcome),
            }
        }
    }

    async fn cast(&mut self, headers: &VoteHeaders<'_>, element: Element<'_>) {
        let parse = || match element {
            Element::Vote(bytes) => Ok(headers.complete_batch_vote(VoteRequest::from_json(bytes)?)),
            Element::Oversized => Err(vote_too_large()),
        };
        while !self.pipeline.has_room() || self.pipeline.cast(parse()).is_err() {
            if let Some(outcome) = self.pipeline.next().await {
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

    fn into_response(mut self) -> BatchResponse {
        let votes = self.receipts.finish();
        match self.retryable {
            Some(refusal) if self.receipts.accepted == 0 => {
                BatchResponse::Problem(Refusal { vote_id: None, ..refusal }.into(), Some(votes))
            }
            _ => BatchResponse::Outcomes(votes),
        }
    }

    /// Creates the response to a body that could not be read to its end.
    fn into_interrupted(mut self, refusal: Refusal) -> BatchResponse {
        let is_surely_unpublished = self.receipts.accepted == 0 && self.retryable.is_none();
        if is_surely_unpublished && refusal.reason != Reason::TooLarge {
            return BatchResponse::Problem(refusal.into(), None);
        }
        let detail = format!("{}; the rest of the batch was not read", refusal.detail);
        self.receipts.push(Err(Refusal { detail, ..refusal }));
        self.into_response()
    }
}

/// The response to a batch.
pub(crate) enum BatchResponse {
    /// 200 and the outcome of each vote.
    Outcomes(Vec<u8>),
    /// A problem for the whole batch. If votes were cast, their outcomes are a part of the problem document: the log
    /// may have some of the votes, so the client needs their ids to cast the votes again.
    Problem(Problem, Option<Vec<u8>>),
}

impl<'r> Responder<'r, 'static> for BatchResponse {
    fn respond_to(self, request: &'r Request<'_>) -> rocket::response::Result<'static> {
        let (mut response, body) = match self {
            Self::Outcomes(votes) => (Response::build().header(ContentType::JSON).finalize(), votes),
            Self::Problem(problem, None) => return problem.respond_to(request),
            Self::Problem(problem, Some(votes)) => {
                let body = with_votes(&problem.document, &votes).map_err(|_| Status::InternalServerError)?;
                (problem.respond_to(request)?, body)
            }
        };
        response.set_sized_body(body.len(), std::io::Cursor::new(body));
        response.set_max_chunk_size(64 * 1024);
        Ok(response)
    }
}

fn with_votes(problem: &api::Problem, votes: &[u8]) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    struct WithVotes<'a> {
        #[serde(flatten)]
        problem: &'a api::Problem,
        votes: &'a RawValue,
    }
    serde_json::to_vec(&WithVotes { problem, votes: serde_json::from_slice(votes)? })
}
