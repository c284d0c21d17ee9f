//! A vote as a client casts it, before anything of it is checked.

use std::fmt;

use uuid::Uuid;

use crate::VoteId;

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
