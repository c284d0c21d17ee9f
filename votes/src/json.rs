//! Reads a vote from JSON.
//!
//! Broken JSON is a malformed body. Well-formed JSON with a wrong, unknown or repeated field is an invalid field, named;
//! so the whole object is read before the first wrong field is reported.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{Reason, Refusal, VoteRequest};

const FIELDS: [&str; 7] = ["name", "album", "year", "rank", "contest", "voter", "vote_id"];

impl VoteRequest {
    /// Reads one vote from a JSON object.
    ///
    /// # Errors
    /// [`Reason::MalformedBody`] if this is no JSON object, [`Reason::InvalidField`] naming the first wrong field.
    pub fn from_json(body: &[u8]) -> Result<Self, Refusal> {
        let malformed = |error: serde_json::Error| Refusal::new(Reason::MalformedBody, format!("not a vote: {error}"));
        let mut json = serde_json::Deserializer::from_slice(body);
        let outcome = json.deserialize_map(VoteVisitor).map_err(malformed)?;
        json.end().map_err(malformed)?;
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
        let mut seen = [false; FIELDS.len()];
        let mut wrong = None;
        while let Some(name) = fields.next_key_seed(Text)? {
            let Some(index) = FIELDS.iter().position(|field| *field == name) else {
                let _: IgnoredAny = fields.next_value()?;
                let shown: String = name.chars().take(64).collect();
                let detail = format!("unknown field; a vote has {}", FIELDS.join(", "));
                wrong.get_or_insert_with(|| Refusal::field(&shown, detail));
                continue;
            };
            let value = fields.next_value_seed(Value)?;
            let outcome = if seen[index] { Err("given twice".to_owned()) } else { request.set(FIELDS[index], value) };
            seen[index] = true;
            if let Err(detail) = outcome {
                wrong.get_or_insert_with(|| Refusal::field(FIELDS[index], detail));
            }
        }
        Ok(wrong.map_or(Ok(request), Err))
    }
}

impl VoteRequest {
    fn set(&mut self, field: &str, value: FieldValue) -> Result<(), String> {
        match field {
            "name" => self.name = value.text()?,
            "album" => self.album = value.text()?,
            "year" => self.year = value.whole_number()?,
            "rank" => self.rank = value.decimal()?,
            "contest" => self.contest = value.text()?,
            "voter" => self.voter = value.text()?,
            _ => self.vote_id = value.text()?,
        }
        Ok(())
    }
}

/// One field's JSON value; `null` is the same as no value.
enum FieldValue {
    Null,
    Text(String),
    Number(f64),
    Other(&'static str),
}

impl FieldValue {
    fn text(self) -> Result<Option<String>, String> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Number(_) => Err("must be text, not a number".to_owned()),
            Self::Other(kind) => Err(format!("must be text, not {kind}")),
        }
    }

    fn decimal(self) -> Result<Option<f64>, String> {
        match self {
            Self::Null => Ok(None),
            Self::Number(number) => Ok(Some(number)),
            Self::Text(text) => {
                parse_decimal(text.trim()).map(Some).ok_or_else(|| "must be a decimal number".to_owned())
            }
            Self::Other(kind) => Err(format!("must be a number or numeric text, not {kind}")),
        }
    }

    fn whole_number(self) -> Result<Option<i64>, String> {
        let Some(number) = self.decimal()? else { return Ok(None) };
        // Every whole number of this range is exact in an f64; the year's own range is far narrower.
        if number.fract() == 0.0 && number.abs() < 1e9 {
            #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
            Ok(Some(number as i64))
        } else {
            Err("must be a whole number".to_owned())
        }
    }
}

/// Plain decimals only: `f64::from_str` would also take `nan`, `inf` and exponents.
fn parse_decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_plain { text.parse().ok() } else { None }
}

struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<String, D::Error> {
        serde::Deserialize::deserialize(key)
    }
}

struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = FieldValue;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<FieldValue, D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Null)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FieldValue, E> {
        Ok(FieldValue::Text(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<FieldValue, E> {
        Ok(FieldValue::Number(number as f64))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<FieldValue, E> {
        Ok(FieldValue::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<FieldValue, E> {
        Ok(FieldValue::Number(number))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<FieldValue, E> {
        Ok(FieldValue::Other("a boolean"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<FieldValue, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<FieldValue, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FieldValue::Other("an object"))
    }
}
