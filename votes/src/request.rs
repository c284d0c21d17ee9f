//! A vote as a client sends it, before it is validated.

use std::fmt;

use uuid::Uuid;

use crate::{
    ids::VoteId,
    metadata::{VoteMetadata, vote_id_of},
    refusal::Refusal,
};

/// The fields of a vote as a server has read them. Text is unchanged; numbers are parsed.
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
    /// The voter.
    pub voter: Option<String>,
    /// The client's retry key, a UUID.
    pub vote_id: Option<String>,
    /// The retry key of the `Idempotency-Key` header.
    pub idempotency_key: Option<String>,
    /// The `traceparent` header.
    pub traceparent: Option<String>,
}

impl VoteRequest {
    /// Replaces the retry key and the trace by those of the metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: VoteMetadata) -> Self {
        let VoteMetadata { idempotency_key, traceparent } = metadata;
        Self { idempotency_key, traceparent, ..self }
    }

    /// Returns the id in the field `vote_id`, if the id is valid. If another field is wrong, the refusal has this id.
    pub fn given_vote_id(&self) -> Option<VoteId> {
        Uuid::try_parse(self.vote_id.as_deref()?).ok().map(VoteId)
    }

    /// Returns whether the client sent an id, in the body or in the header.
    pub fn has_vote_id(&self) -> bool {
        self.vote_id.is_some() || self.idempotency_key.is_some()
    }

    /// Returns the vote's id: the id that the client sent in the body or in the header, or a new id.
    ///
    /// # Errors
    /// [`Reason::InvalidField`](crate::Reason::InvalidField) if an id is invalid, or if the body and the header have
    /// different ids.
    pub fn resolve_vote_id(&self) -> Result<VoteId, Refusal> {
        let body = self.vote_id.as_deref();
        let body = body
            .map(|text| Uuid::try_parse(text).map(VoteId).map_err(|_| Refusal::field("vote_id", "must be a UUID")))
            .transpose()?;
        let header = self.idempotency_key.as_deref().map(vote_id_of).transpose()?;
        match (body, header) {
            (Some(body), Some(header)) if body != header => {
                Err(Refusal::field("vote_id", "differs from the id of the Idempotency-Key header"))
            }
            (body, header) => Ok(body.or(header).unwrap_or_default()),
        }
    }
}

impl fmt::Debug for VoteRequest {
    /// Hides the voter, because voters must never appear in logs.
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
