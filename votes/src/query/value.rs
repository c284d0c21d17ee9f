//! Values, by the type of their column.

use std::{cmp::Ordering, fmt};

use jiff::Timestamp;
use uuid::Uuid;

use super::{Kind, MAX_VALUE};
use crate::{UnixMillis, VoterHash, vote};

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text: of a vote in NFC, of a dataset as it is in the file.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Decimal(f64),
    /// A moment.
    Time(UnixMillis),
    /// A vote's id.
    Uuid(Uuid),
    /// A voter's HMAC.
    Hash(VoterHash),
}

impl fmt::Display for Value {
    /// As [`Kind::read`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => number.fmt(f),
            Self::Decimal(number) => number.fmt(f),
            Self::Time(time) => time.fmt(f),
            Self::Uuid(id) => id.fmt(f),
            Self::Hash(hash) => hash.fmt(f),
        }
    }
}

impl Kind {
    /// Reads a value of this type. The error says what would be one.
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        // No text has more characters than bytes.
        if text.len() > MAX_VALUE && text.chars().count() > MAX_VALUE {
            return Err(format!("has more than {MAX_VALUE} characters"));
        }
        match self {
            Self::Cell if text.contains('\0') => Err("has the control character U+0000".to_owned()),
            Self::Cell => Ok(Value::Text(text.to_owned())),
            Self::Text => vote::composed(text.to_owned()).map(|text| Value::Text(text.trim().to_owned())),
            Self::Integer => whole(text).map(Value::Integer).ok_or_else(|| "must be a whole number".to_owned()),
            Self::Decimal => decimal(text).map(Value::Decimal).ok_or_else(|| "must be a number".to_owned()),
            Self::Time => {
                let time = text.parse::<Timestamp>().map_err(|_| BAD_TIME)?;
                Ok(Value::Time(UnixMillis(time.as_millisecond())))
            }
            Self::Uuid => Uuid::try_parse(text).map(Value::Uuid).map_err(|_| "must be a UUID".to_owned()),
            Self::Hash => hash(text).map(Value::Hash).ok_or_else(|| "must be 64 hexadecimal digits".to_owned()),
        }
    }

    /// The order of two values of this type, an absent one first. In a dataset text that looks like no number comes first, by
    /// code points, and then numbers, by number.
    pub(crate) fn compare(self, a: Option<&Value>, b: Option<&Value>) -> Ordering {
        match (a, b) {
            (Some(Value::Text(a)), Some(Value::Text(b))) if self == Self::Cell => {
                let numbers = (number_of(a), number_of(b));
                let by_number = match numbers {
                    (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                };
                by_number.then_with(|| a.cmp(b))
            }
            (Some(a), Some(b)) => order(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

const BAD_TIME: &str = "must be an RFC 3339 time like 2026-11-21T18:00:00Z; in an address a + is written %2B";

/// The order of two values of one type.
pub(super) fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Decimal(a), Value::Decimal(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Value::Time(a), Value::Time(b)) => a.cmp(b),
        (Value::Uuid(a), Value::Uuid(b)) => a.cmp(b),
        (Value::Hash(a), Value::Hash(b)) => a.0.cmp(&b.0),
        _ => Ordering::Equal,
    }
}

/// The most digits of what looks like a number: of so many a double tells any two apart.
const MAX_DIGITS: usize = 15;

/// The number that a dataset's text looks like, if it looks like one: a JSON number (no leading zeros, no `+`) of at most 15 digits,
/// and at most two of an exponent. Postcodes and long ids are none, so that they stay apart.
pub fn number_of(text: &str) -> Option<f64> {
    if text.len() > MAX_DIGITS + 6 {
        return None;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_number = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && whole.len() + fraction.map_or(0, str::len) <= MAX_DIGITS
        && exponent.is_none_or(|exponent| {
            let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            digits(exponent) && exponent.len() <= 2
        });
    // Zero has one sign.
    if is_number { text.parse().ok().map(|number: f64| number + 0.0) } else { None }
}

fn whole(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let number: f64 = if is_number { text.parse().ok()? } else { return None };
    number.is_finite().then_some(number + 0.0)
}

fn hash(text: &str) -> Option<VoterHash> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut hash = [0; 32];
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(VoterHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_number_is_a_short_json_number() {
        for (text, number) in [
            ("0", 0.0),
            ("-0", 0.0),
            ("10", 10.0),
            ("-2.50", -2.5),
            ("1e3", 1_000.0),
            ("1.5E-2", 0.015),
            ("123456789012345", 123_456_789_012_345.0),
        ] {
            assert_eq!(number_of(text), Some(number), "{text}");
        }
        assert!(number_of("-0").unwrap().is_sign_positive());
        for text in [
            "",
            "-",
            "007",
            "+1",
            " 1",
            "1 ",
            ".5",
            "5.",
            "1,5",
            "1_000",
            "0x10",
            "1e",
            "1e999",
            "NaN",
            "inf",
            "1e+",
            "--1",
            "1234567890123456",
            "1.234567890123456",
            "\u{661}",
            "1.2.3",
            "1e5e5",
            "-e5",
        ] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }
}
