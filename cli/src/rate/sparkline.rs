//! Shows numbers as a line of blocks.

/// The maximum number of periods in a sparkline. With it, a line of `--follow` fits into 80 columns.
pub(super) const MAX_PERIODS: usize = 30;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Returns a block for each number. The lowest block means 0, and the highest block is the maximum of the numbers.
pub(super) fn sparkline<'a>(numbers: impl IntoIterator<Item = &'a u64> + Clone) -> String {
    let max = numbers.clone().into_iter().copied().max().unwrap_or(0).max(1);
    let block = |number: &u64| {
        // Rounds up, so that only 0 is the lowest block.
        let level = (u128::from(*number) * 7).div_ceil(u128::from(max));
        BLOCKS[usize::try_from(level).unwrap_or(0).min(7)]
    };
    numbers.into_iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_maximum_is_a_full_block_and_zero_the_lowest() {
        assert_eq!(sparkline(&[0, 1, 2, 3, 4, 5, 6, 7]), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[0, 0]), "▁▁");
        assert_eq!(sparkline(&[0, 1, 1_000_000]), "▁▂█");
        assert_eq!(sparkline(&[u64::MAX, u64::MAX / 2]), "█▅");
        assert_eq!(sparkline(&[]), "");
    }
}
