//! This module parses durations: a number and a unit, as in `500ms`, `60s`, `2m`, `1.5h` or `7d`. A day has 24 hours.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, fmt::friendly::SpanParser};

/// The units, each with its length in milliseconds.
pub(crate) const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The longest duration of a flag. No use needs a longer duration, and adding this one to a time does not overflow.
const MAX_FLAG_DURATION: Duration = Duration::from_hours(24 * 366);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is not a number and a unit.
    #[error("a duration is a number and a unit: 500ms, 60s, 2m, 1h")]
    Malformed,
    /// The duration is longer than about 20 000 years.
    #[error("the duration is too long")]
    TooLong,
}

/// Reads the duration of a flag, at most 366 days: a number, which may have a fraction, and a unit; or a bare `0`.
///
/// # Errors
/// A sentence that describes a valid duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let duration = parse(text).ok().filter(|duration| *duration <= MAX_FLAG_DURATION);
    duration.ok_or_else(|| DurationError::Malformed.to_string())
}

/// Reads a duration that is a whole number and a unit.
///
/// # Errors
/// If the text is anything else, or if the duration is too long.
pub fn parse_whole_duration(text: &str) -> Result<Duration, DurationError> {
    if text.contains('.') { Err(DurationError::Malformed) } else { parse(text) }
}

/// Reads one number and one unit. Rejects other texts that jiff reads, for example `1h 30m`, `2 weeks` or `-1s`.
fn parse(text: &str) -> Result<Duration, DurationError> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unit_at = text.find(|character: char| character.is_ascii_alphabetic()).ok_or(DurationError::Malformed)?;
    let (number, unit) = text.split_at(unit_at);
    let has_unit = UNITS.iter().any(|(name, _)| *name == unit);
    if !has_unit || !number.splitn(2, '.').all(is_digits) {
        return Err(DurationError::Malformed);
    }
    if unit == "d" && number.contains('.') {
        // jiff does not read fractions of a day, so this reads hours and multiplies them.
        let hours = read(&format!("{number}h"))?;
        return hours.checked_mul(24).ok_or(DurationError::TooLong);
    }
    read(text)
}

/// Reads a duration with jiff. The text must have the right format, so the only possible error is its length.
fn read(text: &str) -> Result<Duration, DurationError> {
    let span = SpanParser::new().parse_span(text);
    let duration = span.and_then(|span: Span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    duration.map(SignedDuration::unsigned_abs).map_err(|_| DurationError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("60s"), Ok(Duration::from_mins(1)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "-1s", "1w", "5 s", "1e3s", "infs", "1e30h", "9999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_fraction_is_exact_in_every_unit() {
        for (text, micros) in [
            ("0.5ms", 500),
            ("1.25s", 1_250_000),
            ("0.1m", 6_000_000),
            ("1.5d", 36 * 3_600_000_000),
            ("366d", 366 * 86_400_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for wrong in ["1.s", ".5s", "1.5.5s", "367d", "1h30m", "1h 30m", "1 hour", "1min", "1S", "PT1S", "٣s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_whole_duration_has_no_fraction_and_may_be_longer_than_a_flag() {
        assert_eq!(parse_whole_duration("3650d"), Ok(Duration::from_hours(87_600)));
        assert_eq!(parse_whole_duration("0s"), Ok(Duration::ZERO));
        for malformed in ["0", "1.5s", "1.0s", "", "s"] {
            assert_eq!(parse_whole_duration(malformed), Err(DurationError::Malformed), "{malformed:?}");
        }
        for long in ["99999999999999999999s", "9999999999999999d"] {
            assert_eq!(parse_whole_duration(long), Err(DurationError::TooLong), "{long}");
        }
    }
}
