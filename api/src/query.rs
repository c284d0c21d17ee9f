//! Responses to queries about single votes and rows of datasets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A page of votes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VotesResponse {
    /// The votes, in the requested order.
    pub votes: Vec<CountedVote>,
    /// The number of matches on all pages.
    pub total: u64,
    /// `exact`, or `at_least` if there may be more matches than `total`.
    #[cfg_attr(feature = "openapi", schema(example = "exact"))]
    pub total_is: String,
    /// The value of `cursor` for the next page. This field is absent on the last page, and if a text in the sort order
    /// is too long for a cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How the query was served.
    pub served: Served,
}

/// A page of rows of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowsResponse {
    /// The rows, in the requested order. Each row maps the names of its columns to their texts. A column is called
    /// `column.N` if its name is empty, is not unique or begins with `column.`.
    pub rows: Vec<BTreeMap<String, String>>,
    /// The number of matches on all pages.
    pub total: u64,
    /// `exact`, or `at_least` if there may be more matches than `total`.
    #[cfg_attr(feature = "openapi", schema(example = "exact"))]
    pub total_is: String,
    /// The value of `cursor` for the next page. This field is absent on the last page, and if a text in the sort order
    /// is too long for a cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How the query was served.
    pub served: Served,
}

/// A counted vote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CountedVote {
    /// The id of the vote: the retry key of the client, or an id that the producer created.
    pub vote_id: Uuid,
    /// The contest.
    #[cfg_attr(feature = "openapi", schema(example = "bands"))]
    pub contest: String,
    /// The band.
    #[cfg_attr(feature = "openapi", schema(example = "Pink Floyd"))]
    pub name: String,
    /// The album. This field is absent if the vote names no album.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub album: Option<String>,
    /// The year of the album.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub year: Option<u16>,
    /// The rank, from 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<f64>,
    /// The HMAC-SHA-256 of the voter, in hexadecimal. The voter itself is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voter: Option<String>,
    /// The time at which the producer accepted the vote (RFC 3339, UTC).
    #[cfg_attr(feature = "openapi", schema(format = "date-time"))]
    pub accepted_at: String,
    /// The producer of the vote: `rest`, `grpc` or `import`.
    #[cfg_attr(feature = "openapi", schema(example = "rest"))]
    pub producer: String,
    /// The partition of the vote log.
    pub partition: u16,
    /// The offset in the partition.
    pub offset: u64,
}

/// How a query was served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Served {
    /// The way in which the query was served: `cache`, `pool` or `direct`.
    #[cfg_attr(feature = "openapi", schema(example = "cache"))]
    pub via: String,
    /// What the response cache had: `hit`, `stale`, `miss`, `bypassed` or `degraded`.
    ///
    /// `stale` means that the response was cached before the newest votes or rows, and `max_age` allowed this.
    /// `bypassed` means that the cache was not used. `degraded` means that the cache was not available.
    #[cfg_attr(feature = "openapi", schema(example = "hit"))]
    pub cache: String,
    /// The time since the query store was read, in milliseconds.
    pub age_ms: u64,
}

/// The result of clearing the response cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Cleared {
    /// The number of cached responses that were cleared.
    pub cleared: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Served {
        Served { via: "cache".to_owned(), cache: "hit".to_owned(), age_ms: 5 }
    }

    #[test]
    fn a_page_of_votes_has_its_total_and_the_next_page() {
        let json = r#"{"votes":[{"vote_id":"0190e1c8-5d6f-7aaa-8bbb-0123456789ab","contest":"bands","name":"Björk","rank":4.5,"accepted_at":"2026-11-21T12:00:00.000Z","producer":"rest","partition":0,"offset":7}],"total":2,"total_is":"exact","next":"abc","served":{"via":"cache","cache":"hit","age_ms":5}}"#;
        let vote = CountedVote {
            vote_id: "0190e1c8-5d6f-7aaa-8bbb-0123456789ab".parse().unwrap(),
            contest: "bands".to_owned(),
            name: "Björk".to_owned(),
            album: None,
            year: None,
            rank: Some(4.5),
            voter: None,
            accepted_at: "2026-11-21T12:00:00.000Z".to_owned(),
            producer: "rest".to_owned(),
            partition: 0,
            offset: 7,
        };
        let (total_is, next) = ("exact".to_owned(), Some("abc".to_owned()));
        let response = VotesResponse { votes: vec![vote], total: 2, total_is, next, served: served() };
        assert_eq!(serde_json::to_string(&response).unwrap(), json);
        assert_eq!(serde_json::from_str::<VotesResponse>(json).unwrap(), response);
    }

    #[test]
    fn the_last_page_of_rows_has_no_next() {
        let json = r#"{"rows":[{"Band":"Queen","votes":"9"}],"total":1,"total_is":"at_least","served":{"via":"cache","cache":"hit","age_ms":5}}"#;
        let row = [("Band".to_owned(), "Queen".to_owned()), ("votes".to_owned(), "9".to_owned())].into();
        let total_is = "at_least".to_owned();
        let response = RowsResponse { rows: vec![row], total: 1, total_is, next: None, served: served() };
        assert_eq!(serde_json::to_string(&response).unwrap(), json);
        assert_eq!(serde_json::from_str::<RowsResponse>(json).unwrap(), response);
        assert_eq!(serde_json::to_string(&Cleared { cleared: 3 }).unwrap(), r#"{"cleared":3}"#);
    }
}
