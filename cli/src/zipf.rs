//! What many people choose: a few things often, most of them seldom.

use rand::{RngExt, rngs::SmallRng};

/// Zipf's law: the place `n` is chosen `n^exponent` times less often than the first.
pub(crate) struct Zipf {
    /// Of each place the chance that the draw is for it or one before it.
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(places: usize, exponent: f64) -> Self {
        let sums: Vec<f64> = (1..=places)
            .scan(0.0, |sum, place| {
                *sum += (place as f64).powf(-exponent);
                Some(*sum)
            })
            .collect();
        let all = sums.last().copied().unwrap_or(1.0);
        Self { cumulative: sums.into_iter().map(|sum| sum / all).collect() }
    }

    /// A place, counted from 0.
    pub(crate) fn draw(&self, random: &mut SmallRng) -> usize {
        let chance: f64 = random.random();
        self.cumulative.partition_point(|sum| *sum <= chance)
    }
}
