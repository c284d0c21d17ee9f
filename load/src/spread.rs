//! The spread of a figure over repeated measurements.

use serde::Serialize;

/// The minimum, the median and the maximum of several values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Returns the spread of the values.
    ///
    /// # Panics
    /// If there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { min: values[0], median: f64::midpoint(lower, upper), max: values[values.len() - 1] }
    }

    /// Divides the mean figure of the first subject by that of the second, within each round. If the machine becomes
    /// slower over time, this hardly affects such ratios. The arguments are pairs of a round and a figure. Returns the
    /// spread of the ratios, or `None` if no round has figures of both subjects whose ratio is finite.
    pub(crate) fn of_ratios(ones: &[(u32, f64)], others: &[(u32, f64)]) -> Option<Self> {
        let of_round = |values: &[(u32, f64)], round| {
            let values: Vec<f64> = values.iter().filter(|(of, _)| *of == round).map(|(_, value)| *value).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let mut rounds: Vec<u32> = ones.iter().map(|(round, _)| *round).collect();
        rounds.dedup();
        let ratios: Vec<f64> = rounds
            .into_iter()
            .filter_map(|round| Some(of_round(ones, round)? / of_round(others, round)?))
            .filter(|ratio| ratio.is_finite())
            .collect();
        (!ratios.is_empty()).then(|| Self::of(ratios))
    }

    /// Returns whether all values are below 1, or all are above 1. Then, as ratios, they show a consistent difference.
    pub(crate) fn is_consistent(self) -> bool {
        self.max < 1.0 || self.min > 1.0
    }

    /// Formats the median, with the minimum and the maximum in parentheses.
    pub(crate) fn formatted(self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }

    /// Describes these ratios in words: by how much the figure of `one` is lower or higher than that of `other`, and
    /// whether the difference is consistent.
    pub(crate) fn describe(self, figure: &str, one: &str, other: &str) -> String {
        let Self { min, median, max } = self;
        // A small ratio needs more digits, so that it is not rounded to "100 % lower".
        let (digits, percent_digits) = if median < 0.1 { (4, 1) } else { (2, 0) };
        let ratio = format!("ratio {median:.digits$}, {min:.digits$} to {max:.digits$}");
        if !self.is_consistent() {
            return format!("{figure}: no consistent difference ({ratio} over the rounds)");
        }
        let word = if median < 1.0 { "lower" } else { "higher" };
        let percent = (median - 1.0).abs() * 100.0;
        format!(
            "{figure} of {one} is {percent:.percent_digits$} % {word} than that of {other} in every round ({ratio})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_minimum_median_and_maximum() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert!(Spread::of([0.8, 0.9]).is_consistent() && Spread::of([1.1, 2.0]).is_consistent());
        assert!(!Spread::of([0.9, 1.1]).is_consistent());
    }

    #[test]
    fn a_small_ratio_has_more_digits() {
        let describe = |ratio| Spread::of([ratio]).describe("mean", "a", "b");
        assert_eq!(
            describe(0.0024),
            "mean of a is 99.8 % lower than that of b in every round (ratio 0.0024, 0.0024 to 0.0024)"
        );
        assert_eq!(describe(0.896), "mean of a is 10 % lower than that of b in every round (ratio 0.90, 0.90 to 0.90)");
    }

    #[test]
    fn ratios_are_computed_within_rounds() {
        let slower = [(1, 2.0), (1, 4.0), (2, 60.0)];
        assert_eq!(Spread::of_ratios(&slower, &[(1, 1.0), (2, 20.0)]), Some(Spread::of([3.0])));
        assert_eq!(Spread::of_ratios(&slower, &[(3, 1.0)]), None);
        assert_eq!(Spread::of_ratios(&slower, &[(1, 0.0)]), None);
    }
}
