//! Rates: the numbers of votes that were accepted in windows of time.

use serde::{Deserialize, Serialize};

/// The number of votes in one window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RateWindow {
    /// The start of the window: Unix time in milliseconds, UTC.
    #[cfg_attr(feature = "openapi", schema(example = 1_763_750_000_000_i64))]
    pub start: i64,
    /// The number of votes that were accepted in the window.
    pub votes: u64,
}

/// The votes in settled windows. No later vote can join a settled window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettledRates {
    /// The start of the first window: Unix time in milliseconds, UTC.
    #[cfg_attr(feature = "openapi", schema(example = 1_763_750_000_000_i64))]
    pub from: i64,
    /// The end of the last window: Unix time in milliseconds, UTC. If it equals `from`, no window is settled yet.
    #[cfg_attr(feature = "openapi", schema(example = 1_763_750_001_000_i64))]
    pub before: i64,
    /// The windows that have votes, sorted by time.
    pub windows: Vec<RateWindow>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_milliseconds() {
        let json = r#"{"from":1000,"before":3000,"windows":[{"start":2000,"votes":7}]}"#;
        let rates = SettledRates { from: 1_000, before: 3_000, windows: vec![RateWindow { start: 2_000, votes: 7 }] };
        assert_eq!(serde_json::to_string(&rates).unwrap(), json);
        assert_eq!(serde_json::from_str::<SettledRates>(json).unwrap(), rates);
    }
}
