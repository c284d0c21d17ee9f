//! Error responses.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An error response (RFC 9457, `application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:ovation:` and the slug of the problem, or `about:blank` if the status alone describes the problem.
    #[serde(rename = "type", default = "about_blank")]
    #[cfg_attr(feature = "openapi", schema(required = true, example = "urn:ovation:invalid-field"))]
    pub kind: String,
    /// A short sentence that is the same for all problems of this type.
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(required = true, minimum = 400, maximum = 599))]
    pub status: u16,
    /// What is wrong with this request, and how to correct it.
    pub detail: String,
    /// The field that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub field: Option<Box<str>>,
    /// The id of the vote. You can safely cast the vote again with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote_id: Option<Uuid>,
}

/// Returns the type of a problem without `type` (RFC 9457, section 4.2.1).
fn about_blank() -> String {
    "about:blank".to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_two_more() {
        let problem = Problem {
            kind: "urn:ovation:invalid-field".to_owned(),
            title: "A field is invalid".to_owned(),
            status: 422,
            detail: "name: is empty".to_owned(),
            field: Some("name".into()),
            vote_id: Some(Uuid::nil()),
        };
        let written = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            written,
            r#"{"type":"urn:ovation:invalid-field","title":"A field is invalid","status":422,"detail":"name: is empty","field":"name","vote_id":"00000000-0000-0000-0000-000000000000"}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&written).unwrap(), problem);
        let bare = Problem { field: None, vote_id: None, ..problem };
        let keys: Vec<_> = serde_json::to_value(&bare).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["detail", "status", "title", "type"]);
    }

    #[test]
    fn a_problem_without_type_and_status_is_read() {
        let problem: Problem = serde_json::from_value(json!({"title": "T", "detail": "D"})).unwrap();
        assert_eq!((problem.kind.as_str(), problem.status), ("about:blank", 0));
    }
}
