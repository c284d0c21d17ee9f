//! Retention: the age or the size up to which a store retains votes.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::duration::{self, parse_whole_duration};

/// Which votes a store retains. Older votes expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Retention {
    /// The votes that were accepted within this time.
    Age(Duration),
    /// The newest votes that fit into this number of bytes.
    Bytes(u64),
}

/// The units of sizes, each with its number of bytes.
const SIZES: [(&str, u64); 4] = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];

/// The shortest retention by age. A store must at least have the votes that are being counted.
const MIN_AGE: Duration = Duration::from_secs(1);

/// The smallest retention by size, in bytes. A store must at least have the votes that are being counted.
const MIN_BYTES: u64 = 1_000_000;

/// The share of the allowed bytes above which votes expire. It is far below 1, because votes keep arriving and only
/// counted votes may expire.
const MAX_FILL: f64 = 0.5;

/// The share of the allowed bytes that remains after votes have expired. So votes expire rarely, and many at a time.
const TARGET_FILL: f64 = 0.3;

/// Votes expire when they exceed the retention by the retention divided by this number.
const EXCESS_AGE_DIVISOR: u32 = 20;

impl Retention {
    /// Returns how many of a partition's `records` the store must retain, or `None` to retain all. All partitions of
    /// the store together use `used` bytes, and may use `bytes`.
    pub fn records_to_retain(bytes: u64, used: f64, records: u64) -> Option<u64> {
        let fill = used / bytes as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not more than `records`")]
        let retained = (records as f64 * TARGET_FILL / fill) as u64;
        (fill > MAX_FILL).then_some(retained)
    }

    /// Returns the age from which votes expire by a retention of this age. It is a little higher than the retention, so
    /// that votes expire rarely, and many at a time.
    pub fn due_age(age: Duration) -> Duration {
        age + Self::excess(age)
    }

    /// Returns by how much a vote exceeds a retention of this age when it expires.
    pub fn excess(age: Duration) -> Duration {
        age / EXCESS_AGE_DIVISOR
    }
}

impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let retention = match SIZES.into_iter().find(|(name, _)| *name == unit) {
            Some((_, bytes)) => number.parse().ok().and_then(|number: u64| number.checked_mul(bytes)).map(Self::Bytes),
            // A digit after the space is rejected: `7 7d` is not 77 days.
            None if number.is_empty() || unit.contains(|character: char| character.is_ascii_digit()) => None,
            None => parse_whole_duration(&format!("{number}{unit}")).ok().map(Self::Age),
        };
        match retention {
            None => Err(format!("{text:?} is neither an age like 36h or 7d nor a size like 500MB or 2GB")),
            Some(Self::Age(age)) if age < MIN_AGE => Err(format!("{text} is too short; retain at least 1s")),
            Some(Self::Bytes(bytes)) if bytes < MIN_BYTES => Err(format!("{text} is too little; retain at least 1MB")),
            Some(retention) => Ok(retention),
        }
    }
}

impl TryFrom<String> for Retention {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Retention> for String {
    fn from(retention: Retention) -> Self {
        retention.to_string()
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, units): (u64, &[(&str, u64)]) = match *self {
            Self::Age(age) => (u64::try_from(age.as_millis()).unwrap_or(u64::MAX), &duration::UNITS),
            Self::Bytes(bytes) => (bytes, &SIZES),
        };
        match units.iter().rev().find(|(_, size)| number.is_multiple_of(*size)) {
            Some((name, size)) => write!(f, "{}{name}", number / size),
            None => write!(f, "{number} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_with_enough_room_retains_all_records() {
        assert_eq!(Retention::records_to_retain(1_000, 500.0, 500), None);
        assert_eq!(Retention::records_to_retain(1_000, 1_000.0, 500), Some(150));
        assert_eq!(Retention::records_to_retain(1_000, 2_000.0, 500), Some(75));
        assert_eq!(Retention::records_to_retain(1_000, 0.0, 0), None);
    }

    #[test]
    fn a_retention_is_an_age_or_a_size() {
        for (text, retention) in [
            ("90s", Retention::Age(Duration::from_secs(90))),
            ("36h", Retention::Age(Duration::from_hours(36))),
            ("7d", Retention::Age(Duration::from_hours(168))),
            ("64MB", Retention::Bytes(64_000_000)),
            ("2GB", Retention::Bytes(2_000_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(retention));
            assert_eq!(retention.to_string(), text);
        }
        for bad in [
            "",
            "7",
            "d",
            "7 weeks",
            "-1d",
            "0s",
            "999kB",
            "1.5h",
            "99999999999999999999d",
            "20000000000000d",
            "7 7d",
            " 7d",
        ] {
            bad.parse::<Retention>().unwrap_err();
        }
    }
}
