//! The rate of a flood.

use std::str::FromStr;

/// The rate at which votes are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// An open loop: this number of votes is due per second.
    PerSecond(f64),
    /// A closed loop: the next vote of a worker is due when the worker has the response to its previous vote.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(0.0) => Ok(Self::Max),
            // Up to this rate, an f64 can count single votes for months.
            Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(Self::PerSecond(rate)),
            _ => Err("a rate is a number of votes per second up to 1000000000, or `max`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_positive_number_and_zero_is_the_maximum() {
        assert_eq!("0".parse(), Ok(Rate::Max));
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        for wrong in ["-1", "fast", "", "inf", "NaN"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong:?}");
        }
    }
}
