//! How long votes are kept.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::UnixMillis;

/// How much of a store is kept; older votes expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Retention {
    /// Votes that were accepted within this time.
    Age(Duration),
    /// As many of the newest as fit into so many bytes.
    Bytes(u64),
}

const UNITS: [(&str, Unit); 9] = [
    ("ms", Unit::Millis(1)),
    ("s", Unit::Millis(1_000)),
    ("m", Unit::Millis(60_000)),
    ("h", Unit::Millis(3_600_000)),
    ("d", Unit::Millis(86_400_000)),
    ("kB", Unit::Bytes(1_000)),
    ("MB", Unit::Bytes(1_000_000)),
    ("GB", Unit::Bytes(1_000_000_000)),
    ("TB", Unit::Bytes(1_000_000_000_000)),
];

#[derive(Clone, Copy)]
enum Unit {
    Millis(u64),
    Bytes(u64),
}

/// Less than this is no retention but a mistake: a store could not even hold what is being counted.
const LEAST: (Duration, u64) = (Duration::from_secs(1), 1_000_000);

/// A store of bounded size that is fuller than the first share of its bound is emptied to the second: early, since votes go on
/// coming in and only what is counted may leave; seldom and much, since an
/// audit begins anew when something expires.
const FULL: f64 = 0.5;
const EMPTIED: f64 = 0.3;

impl Retention {
    /// Of `records` that are part of a store which takes `used` bytes and may take `bytes`, how many to keep; `None` if all.
    pub fn kept(bytes: u64, used: f64, records: u64) -> Option<u64> {
        let used = used / bytes as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than there are")]
        let kept = (records as f64 * EMPTIED / used) as u64;
        (used > FULL).then_some(kept)
    }

    /// When votes of this age were accepted.
    pub fn since(age: Duration) -> UnixMillis {
        UnixMillis(UnixMillis::now().0.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.into_iter().find(|(name, _)| *name == unit.trim_start());
        let retention = number.parse().ok().zip(unit).and_then(|(number, (_, unit)): (u64, _)| match unit {
            Unit::Millis(millis) => Some(Self::Age(Duration::from_millis(number.checked_mul(millis)?))),
            Unit::Bytes(bytes) => Some(Self::Bytes(number.checked_mul(bytes)?)),
        });
        match retention {
            None => Err(format!("{text:?} is neither a time like 36h or 7d nor a size like 500MB or 2GB")),
            Some(Self::Age(age)) if age < LEAST.0 => Err(format!("{text} is too short; keep at least 1s")),
            Some(Self::Bytes(bytes)) if bytes < LEAST.1 => Err(format!("{text} is too little; keep at least 1MB")),
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
        let (number, is_one): (u64, fn(Unit) -> Option<u64>) = match *self {
            Self::Age(age) => (u64::try_from(age.as_millis()).unwrap_or(u64::MAX), |unit| match unit {
                Unit::Millis(millis) => Some(millis),
                Unit::Bytes(_) => None,
            }),
            Self::Bytes(bytes) => (bytes, |unit| match unit {
                Unit::Bytes(bytes) => Some(bytes),
                Unit::Millis(_) => None,
            }),
        };
        let units = UNITS.into_iter().rev().filter_map(|(name, unit)| Some((name, is_one(unit)?)));
        match units.into_iter().find(|(_, size)| number.is_multiple_of(*size)) {
            Some((name, size)) => write!(f, "{}{name}", number / size),
            None => write!(f, "{number} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_within_its_bound_keeps_all() {
        assert_eq!(Retention::kept(1_000, 500.0, 500), None);
        assert_eq!(Retention::kept(1_000, 1_000.0, 500), Some(150));
        assert_eq!(Retention::kept(1_000, 2_000.0, 500), Some(75));
        assert_eq!(Retention::kept(1_000, 0.0, 0), None);
    }

    #[test]
    fn a_retention_is_a_time_or_a_size() {
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
        for bad in ["", "7", "d", "7 weeks", "-1d", "0s", "999kB", "1.5h", "99999999999999999999d", "20000000000000d"] {
            bad.parse::<Retention>().unwrap_err();
        }
    }
}
