//! A vote as a client casts it, before anything of it is checked.

/// The fields of a vote as a protocol read them. Text is as it came; numbers are numbers.
#[derive(Clone, Debug, Default, PartialEq)]
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
