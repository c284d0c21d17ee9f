//! Durations on the command line.

use std::time::Duration;

/// Reads `500ms`, `60s`, `2m`, `1.5h`, or a bare `0`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || "a duration is a number and its unit: 500ms, 60s, 2m, 1h".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        // Far beyond any use, and every sum of a time and such a duration is a time.
        .filter(|duration| *duration <= Duration::from_hours(24 * 366))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("60s"), Ok(Duration::from_mins(1)));
        assert_eq!(parse("2m"), Ok(Duration::from_mins(2)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_mins(90)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "-1s", "1w", "5 s", "1e3s", "infs", "1e30h", "9999999h"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
