//! This module reads a vote from JSON.
//!
//! Invalid JSON is refused as a malformed body. Valid JSON with a wrong, unknown or repeated field is refused as an
//! invalid field, with the field's name. To distinguish the two, the whole object is read before the first wrong field
//! is reported.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{
    refusal::{Reason, Refusal},
    request::VoteRequest,
};

/// The fields of a vote.
pub const VOTE_FIELDS: [&str; 7] = ["name", "album", "year", "rank", "contest", "voter", "vote_id"];

impl VoteRequest {
    /// Reads one vote from a JSON object (RFC 8259, in UTF-8 without a byte order mark).
    ///
    /// # Errors
    /// [`Reason::MalformedBody`] if the body is not a JSON object, [`Reason::InvalidField`] with the first wrong field.
    pub fn from_json(body: &[u8]) -> Result<Self, Refusal> {
        let malformed = |error: &dyn fmt::Display| Refusal::new(Reason::MalformedBody, format!("not a vote: {error}"));
        let body = str::from_utf8(body).map_err(|error| malformed(&error))?;
        let mut json = serde_json::Deserializer::from_str(body);
        let outcome = json.deserialize_map(VoteVisitor).map_err(|error| malformed(&error))?;
        json.end().map_err(|error| malformed(&error))?;
        outcome
    }
}

struct VoteVisitor;

impl<'de> Visitor<'de> for VoteVisitor {
    type Value = Result<VoteRequest, Refusal>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vote, which is a JSON object like {\"name\":\"Pink Floyd\"}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut request = VoteRequest::default();
        let mut is_given = [false; VOTE_FIELDS.len()];
        let mut wrong = None;
        while let Some(name) = fields.next_key::<String>()? {
            // Raw values are read without recursion, so deep nesting does not overflow the stack. A number that is too
            // large is reported with its field.
            let value: &RawValue = fields.next_value()?;
            let Some(index) = VOTE_FIELDS.iter().position(|field| *field == name) else {
                let shown: String = name.chars().take(64).collect();
                let detail = format!("unknown field; a vote has {}", VOTE_FIELDS.join(", "));
                wrong.get_or_insert_with(|| Refusal::field(&shown, detail));
                continue;
            };
            let outcome =
                if is_given[index] { Err("given twice".to_owned()) } else { request.set(VOTE_FIELDS[index], value) };
            is_given[index] = true;
            if let Err(detail) = outcome {
                wrong.get_or_insert_with(|| Refusal::field(VOTE_FIELDS[index], detail));
            }
        }
        Ok(match wrong {
            None => Ok(request),
            Some(refusal) => Err(Refusal { vote_id: request.given_vote_id(), ..refusal }),
        })
    }
}

impl VoteRequest {
    /// Sets one of [`VOTE_FIELDS`] from a JSON value.
    fn set(&mut self, field: &str, value: &RawValue) -> Result<(), String> {
        match field {
            "name" => self.name = read_text(value)?,
            "album" => self.album = read_text(value)?,
            "year" => self.year = read_number(value)?.map(to_whole).transpose()?,
            "rank" => self.rank = read_number(value)?,
            "contest" => self.contest = read_text(value)?,
            "voter" => self.voter = read_text(value)?,
            _ => self.vote_id = read_text(value)?,
        }
        Ok(())
    }

    /// Sets one of [`VOTE_FIELDS`] from text.
    ///
    /// # Errors
    /// If the field is a number and the text is not.
    pub fn set_text(&mut self, field: &str, text: String) -> Result<(), String> {
        match field {
            "name" => self.name = Some(text),
            "album" => self.album = Some(text),
            "year" => self.year = Some(to_whole(parse_number(&text)?)?),
            "rank" => self.rank = Some(parse_number(&text)?),
            "contest" => self.contest = Some(text),
            "voter" => self.voter = Some(text),
            _ => self.vote_id = Some(text),
        }
        Ok(())
    }
}

/// The value of a field by its JSON type. `null` is the same as no value.
enum Value<'a> {
    Null,
    Text(String),
    Number(&'a str),
    Other(&'static str),
}

impl<'a> Value<'a> {
    fn of(value: &'a RawValue) -> Result<Self, String> {
        let json = value.get();
        Ok(match json.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b'"') => Self::Text(unquote(json)?),
            Some(b't' | b'f') => Self::Other("a boolean"),
            Some(b'[') => Self::Other("an array"),
            Some(b'{') => Self::Other("an object"),
            _ => Self::Number(json),
        })
    }
}

/// Returns the text of a well-formed JSON string.
fn unquote(json: &str) -> Result<String, String> {
    match json.get(1..json.len() - 1) {
        Some(plain) if !plain.contains('\\') => Ok(plain.to_owned()),
        // The only possible error in a well-formed string is half of a surrogate pair.
        _ => serde_json::from_str(json).map_err(|_| "must be Unicode text; it has half of a surrogate pair".to_owned()),
    }
}

fn read_text(value: &RawValue) -> Result<Option<String>, String> {
    match Value::of(value)? {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(text)),
        Value::Number(_) => Err("must be text, not a number".to_owned()),
        Value::Other(kind) => Err(format!("must be text, not {kind}")),
    }
}

fn read_number(value: &RawValue) -> Result<Option<f64>, String> {
    match Value::of(value)? {
        Value::Null => Ok(None),
        Value::Number(json) => parse_number(json).map(Some),
        Value::Text(text) => parse_number(&text).map(Some),
        Value::Other(kind) => Err(format!("must be a number or numeric text, not {kind}")),
    }
}

fn parse_number(text: &str) -> Result<f64, String> {
    parse_decimal(text.trim()).ok_or_else(|| "must be a number or numeric text".to_owned())
}

fn to_whole(number: f64) -> Result<i64, String> {
    if number.is_finite() && number.fract() != 0.0 {
        return Err("must be a whole number".to_owned());
    }
    // A number outside the range of i64 saturates. The result is outside the range of every field, too.
    #[expect(clippy::cast_possible_truncation, reason = "the number is whole, and the cast saturates")]
    Ok(number as i64)
}

/// Parses a JSON number. Leading zeros are allowed, too. A number outside the range of f64 becomes infinite. This
/// checks the characters first, because `f64::from_str` also accepts `nan` and `inf`.
fn parse_decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    if is_number { text.parse().ok() } else { None }
}
