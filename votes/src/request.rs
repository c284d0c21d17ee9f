//! A vote as a client casts it, before anything of it is checked.

use std::fmt;

use uuid::Uuid;

use crate::{Refusal, VoteId};

/// The fields of a vote as a protocol read them. Text is as it came; numbers are numbers.
#[derive(Clone, Default, PartialEq)]
pub struct VoteRequest {
    /// The band.
    pub name: Option<String>,
    /// The album.
    pub album: Option<String>,
    /// The album's year.
    pub year: Option<i64>,
    /// The rank, 0 to 100.
    pub rank: Option<f64>,
    /// The contest's slug.
    pub contest: Option<String>,
    /// Who votes.
    pub voter: Option<String>,
    /// The client's retry key, a UUID.
    pub vote_id: Option<String>,
    /// The retry key as an `Idempotency-Key` header.
    pub idempotency_key: Option<String>,
    /// The `traceparent` header.
    pub traceparent: Option<String>,
}

impl VoteRequest {
    /// The id that the vote itself carries, if it is one. Refusals of a vote that is wrong otherwise carry it back.
    pub fn given_vote_id(&self) -> Option<VoteId> {
        Uuid::try_parse(self.vote_id.as_deref()?).ok().map(VoteId)
    }

    /// The id that the vote is to have: the client's, from the body or the header, or a new one.
    ///
    /// # Errors
    /// [`Reason::InvalidField`](crate::Reason::InvalidField) if what was given is no id, or are two.
    pub fn resolve_vote_id(&self) -> Result<VoteId, Refusal> {
        let body = self.vote_id.as_deref();
        let body = body
            .map(|text| Uuid::try_parse(text).map(VoteId).map_err(|_| Refusal::field("vote_id", "must be a UUID")))
            .transpose()?;
        let header = self.idempotency_key.as_deref().map(idempotency_key).transpose()?;
        match (body, header) {
            (Some(body), Some(header)) if body != header => {
                Err(Refusal::field("vote_id", "differs from the id that the Idempotency-Key header stands for"))
            }
            (body, header) => Ok(body.or(header).unwrap_or_default()),
        }
    }
}

fn idempotency_key(header: &str) -> Result<VoteId, Refusal> {
    // A structured field string is quoted, and people also send the bare text: both are the same key.
    let key = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(header);
    if key.is_empty() || key.chars().count() > 255 || key.chars().any(char::is_control) {
        return Err(Refusal::field("Idempotency-Key", "must be 1 to 255 characters without control characters"));
    }
    Ok(VoteId::from_idempotency_key(key))
}

impl fmt::Debug for VoteRequest {
    /// Without the voter, who is never logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VoteRequest")
            .field("name", &self.name)
            .field("album", &self.album)
            .field("year", &self.year)
            .field("rank", &self.rank)
            .field("contest", &self.contest)
            .field("voter", &self.voter.as_ref().map(|_| ".."))
            .field("vote_id", &self.vote_id)
            .field("idempotency_key", &self.idempotency_key)
            .field("traceparent", &self.traceparent)
            .finish()
    }
}
