//! Which generations of a summary are merged.

use crate::document::Generation;

/// The smallest number of generations that are merged.
const MIN_MERGED: usize = 8;

/// A generation is merged with newer ones only if it has at most this many times their parts.
const MAX_RATIO: u64 = 2;

/// Returns the index of the first generation that is to be merged with all newer ones, or `None` if too few generations
/// can be merged. `parts` has the number of parts of each generation, from the oldest to the newest.
///
/// Each older generation is included while it has at most [`MAX_RATIO`] times the parts of those that are already
/// included. So a merged generation is 1.5 times as large as each older one in it, and a count is rewritten a
/// logarithmic number of times. The generations that are not included are each more than twice as large as the next, so
/// the list is short.
pub(super) fn first_to_merge(parts: &[u32]) -> Option<usize> {
    let (mut first, mut included) = (parts.len(), 0);
    for (index, parts) in parts.iter().enumerate().rev() {
        let parts = u64::from(*parts);
        if included > 0 && parts > MAX_RATIO * included {
            break;
        }
        included += parts;
        first = index;
    }
    (parts.len() - first >= MIN_MERGED).then_some(first)
}

/// Returns the list with `new` in place of the generations `old`, or `None` if the list does not have them any more.
/// They are adjacent: other generations are added only after them.
pub(super) fn replaced(list: &[Generation], old: &[Generation], new: &Generation) -> Option<Vec<Generation>> {
    let from = list.windows(old.len()).position(|generations| generations == old)?;
    let (before, after) = (&list[..from], &list[from + old.len()..]);
    Some(before.iter().chain([new]).chain(after).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_of_similar_size_are_merged() {
        assert_eq!(first_to_merge(&[]), None);
        assert_eq!(first_to_merge(&[1; 7]), None);
        assert_eq!(first_to_merge(&[1; 8]), Some(0));
        // 7 parts are at least half of 14, but not of 15.
        assert_eq!(first_to_merge(&[14, 1, 1, 1, 1, 1, 1, 1]), Some(0));
        assert_eq!(first_to_merge(&[15, 1, 1, 1, 1, 1, 1, 1]), None);
        assert_eq!(first_to_merge(&[17, 1, 1, 1, 1, 1, 1, 1, 1]), Some(1));
    }

    #[test]
    fn the_list_stays_short_and_a_count_is_rewritten_rarely() {
        const ADDED: u32 = 10_000;
        // A merged generation is not larger than the number of different counts allows.
        for max_parts in [1, 10, 100, 1_000, ADDED] {
            let (mut list, mut longest, mut rewritten) = (Vec::new(), 0, 0);
            for _ in 0..ADDED {
                list.push(1);
                longest = longest.max(list.len());
                if let Some(first) = first_to_merge(&list) {
                    let merged = list.drain(first..).sum::<u32>().min(max_parts);
                    rewritten += merged;
                    list.push(merged);
                }
            }
            // At most 14 generations are each more than twice as large as the next, up to 10 000 parts, and 8 are new.
            assert!(longest <= 14 + 8, "{longest} generations with at most {max_parts} parts");
            // A part is rewritten once when it is new, and then each time 1.5 times as many parts: 23 times.
            assert!(rewritten <= 24 * ADDED, "{rewritten} parts were rewritten of at most {max_parts} parts");
        }
    }

    #[test]
    fn a_merged_generation_takes_the_place_of_the_old_ones() {
        let generation = |id: &str| Generation { id: id.to_owned(), parts: 1 };
        let list = ["a", "b", "c", "d"].map(generation);
        let new = generation("new");
        assert_eq!(replaced(&list, &list[1..3], &new), Some(vec![generation("a"), new.clone(), generation("d")]));
        assert_eq!(replaced(&list[2..], &list[1..3], &new), None);
    }
}
