//! Draws random items by Zipf's law: a few items are drawn often, and most items are drawn rarely.

use rand::rngs::SmallRng;
use rand_distr::Distribution;

/// A Zipf distribution: the n-th item is drawn `n^exponent` times less often than the first.
pub(crate) struct Zipf {
    ranks: rand_distr::Zipf<f64>,
    items: usize,
}

impl Zipf {
    /// Creates a distribution.
    ///
    /// # Panics
    /// If there are no items, or the exponent is negative.
    pub(crate) fn new(items: usize, exponent: f64) -> Self {
        let ranks =
            rand_distr::Zipf::new(items as f64, exponent).expect("there are items, and the exponent is not negative");
        Self { ranks, items }
    }

    /// Draws an item. Returns its number, from 0.
    pub(crate) fn draw(&self, random: &mut SmallRng) -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a whole number from 1")]
        let rank = self.ranks.sample(random) as usize;
        rank.clamp(1, self.items) - 1
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn items_are_drawn_by_the_law_and_a_seed_repeats_the_draw() {
        const DRAWS: u32 = 200_000;
        const ITEMS: usize = 20;
        for exponent in [0.0, 0.5, 1.0, 2.0] {
            let zipf = Zipf::new(ITEMS, exponent);
            let draw = |seed| {
                let mut random = SmallRng::seed_from_u64(seed);
                (0..DRAWS).map(|_| zipf.draw(&mut random)).collect::<Vec<_>>()
            };
            let drawn = draw(1);
            assert_eq!(drawn, draw(1));
            let all: f64 = (1..=ITEMS).map(|item| (item as f64).powf(-exponent)).sum();
            for item in 0..ITEMS {
                let expected = ((item + 1) as f64).powf(-exponent) / all * f64::from(DRAWS);
                let found = drawn.iter().filter(|drawn| **drawn == item).count() as f64;
                // Five times the standard deviation of such a count.
                assert!((found - expected).abs() < 5.0 * expected.sqrt(), "{exponent}, {item}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn a_single_item_is_always_drawn() {
        let mut random = SmallRng::seed_from_u64(1);
        assert_eq!(Zipf::new(1, 1.0).draw(&mut random), 0);
    }
}
