//! Numbers as a line of blocks.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A block for each number: the lowest is nothing, the highest the greatest of them.
pub(super) fn sparkline<'a>(numbers: impl IntoIterator<Item = &'a u64> + Clone) -> String {
    let most = numbers.clone().into_iter().copied().max().unwrap_or(0).max(1);
    let block = |number: &u64| {
        // Whatever is more than nothing is seen as such.
        let level = (u128::from(*number) * 7).div_ceil(u128::from(most));
        BLOCKS[usize::try_from(level).unwrap_or(0).min(7)]
    };
    numbers.into_iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_is_full_and_nothing_is_flat() {
        assert_eq!(sparkline(&[0, 1, 2, 3, 4, 5, 6, 7]), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[0, 0]), "▁▁");
        assert_eq!(sparkline(&[0, 1, 1_000_000]), "▁▂█");
        assert_eq!(sparkline(&[u64::MAX, u64::MAX / 2]), "█▅");
        assert_eq!(sparkline(&[]), "");
    }
}
