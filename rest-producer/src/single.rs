//! `POST /v1/votes`: casts one vote.

use api::{Receipt, Vote};
use rocket::{State, http::Status, post, response::content::RawJson};
use service::{
    http::{Problem, RequestBody},
    ingest::MeteredIngest,
};
use votes::{Refusal, VoteRequest};

use crate::{
    body::{Body, BodyTimeouts},
    headers::VoteHeaders,
    receipt,
};

/// Casts one vote.
///
/// 202 means that the vote is durable on the vote log.
#[utoipa::path(
    tag = "votes",
    params(
        ("Idempotency-Key" = Option<String>, Header, max_length = 255, description =
            "Replaces `vote_id`. A UUID is used as it is. Any other text becomes its UUIDv5."),
        ("traceparent" = Option<String>, Header, description = "W3C trace context. The vote log stores it with the vote."),
    ),
    request_body(content = Vote, content_type = "application/json"),
    responses(
        (status = 202, description = "The vote is durable on the vote log.", body = Receipt),
        crate::refusals::Refusals,
    ),
)]
#[post("/v1/votes")]
pub(crate) async fn cast_vote(
    headers: VoteHeaders<'_>,
    body: RequestBody,
    ingest: &State<MeteredIngest>,
    timeouts: &State<BodyTimeouts>,
) -> Result<(Status, RawJson<Vec<u8>>), Problem> {
    let request = read(&headers, Body::new(body, **timeouts)).await;
    let accepted = ingest.cast(request, headers.network).await?;
    let mut json = Vec::with_capacity(receipt::TYPICAL_BYTES);
    receipt::write(&mut json, &accepted);
    Ok((Status::Accepted, RawJson(json)))
}

async fn read(headers: &VoteHeaders<'_>, mut body: Body) -> Result<VoteRequest, Refusal> {
    let read = async {
        headers.check_vote_type()?;
        body.vote().await
    };
    match read.await {
        Ok(bytes) => headers.complete(VoteRequest::from_json(&bytes)?),
        Err(refusal) => {
            body.drain(&refusal).await;
            Err(refusal)
        }
    }
}
