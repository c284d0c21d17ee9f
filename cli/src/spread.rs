//! Several values of one figure, from measurements that were repeated.

use serde::Serialize;

/// The least, the middle and the greatest of several values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// # Panics
    /// If there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (lower, upper) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { least: values[0], median: f64::midpoint(lower, upper), most: values[values.len() - 1] }
    }

    /// The first's figure divided by the second's, within each round: machines drift, and such ratios hardly. `None` if no round has
    /// both.
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

    /// Whether all values are on the same side of 1.
    pub(crate) fn is_decided(self) -> bool {
        self.most < 1.0 || self.least > 1.0
    }

    /// The middle, with the others behind it.
    pub(crate) fn shown(self, digits: usize) -> String {
        let Self { least, median, most } = self;
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }

    /// These ratios of a figure in words: by how much it is lower or higher, and how sure that is.
    pub(crate) fn outcome(self, figure: &str, one: &str, other: &str) -> String {
        let Self { least, median, most } = self;
        // Nothing is 100 % lower.
        let (digits, percent_digits) = if median < 0.1 { (4, 1) } else { (2, 0) };
        let ratio = format!("ratio {median:.digits$}, {least:.digits$} to {most:.digits$}");
        if !self.is_decided() {
            return format!("{figure}: no difference can be told ({ratio} over the rounds)");
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
    fn a_spread_is_least_middle_and_most() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { least: 1.0, median: 2.0, most: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { least: 1.0, median: 2.5, most: 4.0 });
        assert!(Spread::of([0.8, 0.9]).is_decided() && Spread::of([1.1, 2.0]).is_decided());
        assert!(!Spread::of([0.9, 1.1]).is_decided());
    }

    #[test]
    fn a_small_ratio_keeps_its_digits() {
        let outcome = |ratio| Spread::of([ratio]).outcome("mean", "a", "b");
        assert_eq!(
            outcome(0.0024),
            "mean of a is 99.8 % lower than that of b in every round (ratio 0.0024, 0.0024 to 0.0024)"
        );
        assert_eq!(outcome(0.896), "mean of a is 10 % lower than that of b in every round (ratio 0.90, 0.90 to 0.90)");
    }

    #[test]
    fn ratios_are_within_rounds() {
        let slower = [(1, 2.0), (1, 4.0), (2, 60.0)];
        assert_eq!(Spread::of_ratios(&slower, &[(1, 1.0), (2, 20.0)]), Some(Spread::of([3.0])));
        assert_eq!(Spread::of_ratios(&slower, &[(3, 1.0)]), None);
        assert_eq!(Spread::of_ratios(&slower, &[(1, 0.0)]), None);
    }
}
