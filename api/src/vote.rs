//! Votes as clients send them, and the responses of the producers.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::problem::Problem;

/// A vote as a client sends it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "openapi",
    derive(utoipa::ToSchema),
    schema(example = json!({"name": "Pink Floyd", "album": "The Wall", "year": 1979, "rank": 5}))
)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// The band: 1 to 100 characters after trimming, in any Unicode normalisation form, without control characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// The album: up to 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub album: Option<String>,
    /// The year of the album, as a number or as numeric text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::year))]
    pub year: Option<u16>,
    /// The rank, as a number or as numeric text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(schema_with = schema::rank))]
    pub rank: Option<f64>,
    /// The slug of the contest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", default = "bands"))]
    pub contest: Option<String>,
    /// The voter, as opaque text. The voter is never stored. A contest with one vote per voter requires this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub voter: Option<String>,
    /// The retry key. A vote that is cast again with the same id counts once. If this field is absent, the producer
    /// creates an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(format = Uuid))]
    pub vote_id: Option<String>,
}

/// The confirmation that the vote is durable on the vote log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Receipt {
    /// The id of the vote: the id in the request, or an id that the producer created.
    pub vote_id: Uuid,
    /// The slug of the contest.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "bands"))]
    pub contest: String,
    /// The partition of the vote log.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 65535))]
    pub partition: u16,
    /// The offset in the partition.
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub offset: u64,
    /// The time at which the producer accepted the vote: RFC 3339, UTC, in milliseconds.
    #[cfg_attr(feature = "openapi", schema(format = DateTime, example = "2026-11-21T12:00:00.123Z"))]
    pub accepted_at: String,
}

/// The outcome of one vote of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum BatchItem {
    /// The vote is on the vote log.
    Receipt(Receipt),
    /// The vote was refused.
    Problem(Problem),
}

/// The problem of a batch in which no vote was confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchProblem {
    /// Why the whole batch failed.
    #[cfg_attr(feature = "openapi", schema(inline))]
    #[serde(flatten)]
    pub problem: Problem,
    /// The outcome of each vote, with the id of the vote. Some votes may be on the vote log although they were not
    /// confirmed.
    pub votes: Vec<BatchItem>,
}

/// Schemas that utoipa can't derive from the types: numbers may be sent as text.
#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Schema, Type};

    pub(super) fn year() -> Schema {
        let year = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1900)).maximum(Some(2100));
        number_or_text("The year of the album, as a number or as numeric text.", year)
    }

    pub(super) fn rank() -> Schema {
        let rank = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(100));
        number_or_text("The rank, as a number or as numeric text.", rank)
    }

    fn number_or_text(description: &str, number: ObjectBuilder) -> Schema {
        let pattern = r"^\s*-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*$";
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        let none = ObjectBuilder::new().schema_type(Type::Null);
        OneOfBuilder::new().description(Some(description)).item(number).item(text).item(none).build().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RECEIPT: &str = r#"{"vote_id":"01890a5d-ac96-774b-bcce-b302099a8057","contest":"bands","partition":7,"offset":12,"accepted_at":"2026-11-21T12:00:00.123Z"}"#;

    fn receipt() -> Receipt {
        Receipt {
            vote_id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            contest: "bands".to_owned(),
            partition: 7,
            offset: 12,
            accepted_at: "2026-11-21T12:00:00.123Z".to_owned(),
        }
    }

    #[test]
    fn absent_fields_of_a_vote_are_not_written_and_unknown_fields_are_refused() {
        let vote = Vote { name: "Pink Floyd".to_owned(), year: Some(1979), ..Vote::default() };
        assert_eq!(serde_json::to_string(&vote).unwrap(), r#"{"name":"Pink Floyd","year":1979}"#);
        assert!(serde_json::from_value::<Vote>(json!({"name": "X", "band": "Y"})).is_err());
    }

    #[test]
    fn a_receipt_has_the_vote_its_position_and_its_time() {
        assert_eq!(serde_json::to_string(&receipt()).unwrap(), RECEIPT);
        assert_eq!(serde_json::from_str::<Receipt>(RECEIPT).unwrap(), receipt());
    }

    #[test]
    fn each_vote_of_a_batch_has_a_receipt_or_a_problem() {
        let problem = r#"{"type":"urn:ovation:queue-full","title":"Too many votes are waiting","status":503,"detail":"try again"}"#;
        let response = format!("[{RECEIPT},{problem}]");
        let items: Vec<BatchItem> = serde_json::from_str(&response).unwrap();
        assert!(matches!(&items[..], [BatchItem::Receipt(first), BatchItem::Problem(_)] if *first == receipt()));
        assert_eq!(serde_json::to_string(&items).unwrap(), response);

        let whole = format!(r#"{},"votes":{response}}}"#, &problem[..problem.len() - 1]);
        let failed: BatchProblem = serde_json::from_str(&whole).unwrap();
        assert_eq!((failed.problem.status, failed.votes), (503, items.clone()));
        let BatchItem::Problem(problem) = items[1].clone() else { panic!("the second item is no problem") };
        assert_eq!(serde_json::to_string(&BatchProblem { problem, votes: items }).unwrap(), whole);
    }
}
