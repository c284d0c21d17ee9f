//! The values of columns, by the type of the column.
//!
//! A dataset's cell is text. A text looks like a number if it is a short JSON number: see [`number_of`].

use std::{cmp::Ordering, fmt};

use jiff::Timestamp;
use uuid::Uuid;
use votes::{UnixMillis, VoterHash, normalized};

use super::limits::MAX_VALUE_CHARS;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A vote's text: in NFC, trimmed, without control characters.
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Decimal,
    /// A time, in milliseconds.
    Time,
    /// A vote's id.
    Uuid,
    /// A voter's HMAC.
    Hash,
    /// A dataset's text. Cells that look like numbers are compared as numbers.
    Cell,
}

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text. A vote's text is in NFC. A dataset's text is unchanged from the file.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Decimal(f64),
    /// A time.
    Time(UnixMillis),
    /// A vote's id.
    Uuid(Uuid),
    /// A voter's HMAC.
    Hash(VoterHash),
}

impl fmt::Display for Value {
    /// Writes the text from which [`Kind::read`] reads the same value.
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
    /// Reads a value of this type.
    ///
    /// # Errors
    /// A text that describes a valid value of this type.
    pub(crate) fn read(self, text: &str) -> Result<Value, String> {
        // A text has at most as many characters as bytes, so most texts need not be counted.
        if text.len() > MAX_VALUE_CHARS && text.chars().count() > MAX_VALUE_CHARS {
            return Err(format!("has more than {MAX_VALUE_CHARS} characters"));
        }
        match self {
            Self::Cell if text.contains('\0') => Err("has the control character U+0000".to_owned()),
            Self::Cell => Ok(Value::Text(text.to_owned())),
            Self::Text => normalized(text.to_owned()).map(|text| Value::Text(text.trim().to_owned())),
            Self::Integer => parse_whole(text).map(Value::Integer).ok_or_else(|| "must be a whole number".to_owned()),
            Self::Decimal => parse_decimal(text).map(Value::Decimal).ok_or_else(|| "must be a number".to_owned()),
            Self::Time => {
                let time = text.parse::<Timestamp>().map_err(|_| BAD_TIME)?;
                Ok(Value::Time(UnixMillis(time.as_millisecond())))
            }
            Self::Uuid => Uuid::try_parse(text).map(Value::Uuid).map_err(|_| "must be a UUID".to_owned()),
            Self::Hash => text.parse().map(Value::Hash).map_err(str::to_owned),
        }
    }

    /// Compares two values of this type. An absent value is the lowest. Cells that look like numbers are compared as
    /// numbers, and are higher than all other cells. Other cells, and cells with equal numbers, are compared by code
    /// points.
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
            (Some(a), Some(b)) => compare_same_type(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

const BAD_TIME: &str = "must be an RFC 3339 time like 2026-11-21T18:00:00Z; write + as %2B in a URL";

/// Compares two values of the same type.
fn compare_same_type(a: &Value, b: &Value) -> Ordering {
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

/// The maximum number of digits in a text that looks like a number. Two different numbers of 15 digits are always
/// different 64-bit floats.
const MAX_DIGITS: usize = 15;

/// Returns the number that a dataset's text looks like, or `None` if it does not look like a number.
///
/// A text looks like a number if it is a JSON number (no leading zeros, no `+`) of at most 15 digits, with an exponent
/// of at most two digits. Postcodes with leading zeros and long ids do not look like numbers, so two different
/// postcodes or ids are never equal.
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
    // Adding zero turns -0 into 0.
    if is_number { text.parse().ok().map(|number: f64| number + 0.0) } else { None }
}

fn parse_whole(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn parse_decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let number: f64 = if is_number { text.parse().ok()? } else { return None };
    number.is_finite().then_some(number + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_looks_like_a_number_if_it_is_a_short_json_number() {
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
