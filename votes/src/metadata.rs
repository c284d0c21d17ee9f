//! What a client sends in addition to a vote, in HTTP headers or in gRPC metadata.

use crate::{ids::VoteId, refusal::Refusal};

/// The headers, or the gRPC metadata, of a request with one vote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoteMetadata {
    /// The retry key, as the client sent it.
    pub idempotency_key: Option<String>,
    /// The client's trace, as the client sent it.
    pub traceparent: Option<String>,
}

impl VoteMetadata {
    /// The name of the header with the retry key of a vote
    /// (<https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header>).
    pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

    /// The name of the header with the client's trace (<https://www.w3.org/TR/trace-context/#traceparent-header>).
    pub const TRACEPARENT: &str = "traceparent";

    /// Reads the headers. `keys` has the value of each [`IDEMPOTENCY_KEY`](Self::IDEMPOTENCY_KEY) header, or `None` if
    /// the value is not text.
    ///
    /// # Errors
    /// If there is more than one key, or if the key is not text. [`Vote::admit`](crate::Vote::admit) checks whether the
    /// key is valid.
    pub fn read<'a>(
        keys: impl IntoIterator<Item = Option<&'a str>>,
        traceparent: Option<&str>,
    ) -> Result<Self, Refusal> {
        let mut keys = keys.into_iter();
        let idempotency_key = match (keys.next(), keys.next()) {
            (None, _) => None,
            (Some(Some(key)), None) => Some(key.to_owned()),
            (Some(None), None) => return Err(Refusal::field(Self::IDEMPOTENCY_KEY, "must be ASCII text")),
            _ => return Err(Refusal::field(Self::IDEMPOTENCY_KEY, "given twice")),
        };
        Ok(Self { idempotency_key, traceparent: traceparent.map(str::to_owned) })
    }

    /// Returns the refusal of a key for a request with many votes. `context` is a phrase like `in a batch`.
    pub fn key_with_many_votes(context: &str) -> Refusal {
        let detail = format!("is for a single vote; {context} each vote carries its own vote_id");
        Refusal::field(Self::IDEMPOTENCY_KEY, detail)
    }
}

/// Returns the id for a retry key.
pub(crate) fn vote_id_of(key: &str) -> Result<VoteId, Refusal> {
    // The header is a string of RFC 8941, which is quoted, but many clients send the text without quotes. Both are the
    // same key.
    let key = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(key);
    if key.is_empty() || key.chars().count() > 255 || key.chars().any(char::is_control) {
        let detail = "must be 1 to 255 characters without control characters";
        return Err(Refusal::field(VoteMetadata::IDEMPOTENCY_KEY, detail));
    }
    Ok(VoteId::from_idempotency_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_key_is_accepted_and_anything_else_is_refused() {
        let read = |keys: &[Option<&'static str>]| {
            let metadata = VoteMetadata::read(keys.iter().copied(), Some("trace"));
            metadata.map_err(|refusal| refusal.detail)
        };
        let accepted = |key: Option<&str>| VoteMetadata {
            idempotency_key: key.map(str::to_owned),
            traceparent: Some("trace".to_owned()),
        };
        assert_eq!(read(&[]), Ok(accepted(None)));
        assert_eq!(read(&[Some("one key")]), Ok(accepted(Some("one key"))));
        assert_eq!(read(&[None]).unwrap_err(), "Idempotency-Key: must be ASCII text");
        assert_eq!(read(&[Some("a"), Some("a")]).unwrap_err(), "Idempotency-Key: given twice");
        assert_eq!(read(&[None, None]).unwrap_err(), "Idempotency-Key: given twice");
    }
}
