//! `POST /v1/votes`: one vote.

use rocket::{State, http::Status, post, response::content::RawJson};
use service::{
    door::MeteredDoor,
    http::{Problem, RequestBody},
};
use votes::{Refusal, VoteRequest};

use crate::{
    body::{Body, Patience},
    headers::VoteHeaders,
    openapi::VoteBody,
    receipt::{self, Receipt},
};

/// Casts one vote. 202 means that the vote log has it for good.
#[utoipa::path(
    tag = "votes",
    params(
        ("Idempotency-Key" = Option<String>, Header, max_length = 255, description =
            "Stands for `vote_id`: a UUID as it is, other text as the UUIDv5 of it."),
        ("traceparent" = Option<String>, Header, description = "W3C trace context, carried along with the vote."),
    ),
    request_body(content = VoteBody, content_type = "application/json"),
    responses(
        (status = 202, description = "The vote log has the vote for good.", body = Receipt),
        crate::openapi::Refusals,
    ),
)]
#[post("/v1/votes")]
pub(crate) async fn cast_vote(
    headers: VoteHeaders<'_>,
    body: RequestBody,
    door: &State<MeteredDoor>,
    patience: &State<Patience>,
) -> Result<(Status, RawJson<Vec<u8>>), Problem> {
    let request = read(&headers, Body::new(body, **patience)).await;
    let accepted = door.cast(request, headers.network).await?;
    let mut json = Vec::with_capacity(receipt::TYPICAL_BYTES);
    receipt::write(&mut json, &accepted);
    Ok((Status::Accepted, RawJson(json)))
}

async fn read(headers: &VoteHeaders<'_>, mut body: Body) -> Result<VoteRequest, Refusal> {
    let read = async {
        headers.is_vote()?;
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
