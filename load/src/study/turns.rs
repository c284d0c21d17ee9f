//! The three ways to execute a query, and the order of their turns.

use serde::Serialize;

/// A way to execute a query: with a connection of its own, with the pool, or with the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    Direct,
    Pool,
    Cache,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Direct, Self::Pool, Self::Cache];

    /// Returns the value of the parameter `via`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Pool => "pool",
            Self::Cache => "cache",
        }
    }
}

/// One measurement of a way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) way: Way,
    pub(super) round: u32,
    /// The number of earlier turns of this way. The readers of two turns with the same number draw the same queries.
    pub(super) number: u32,
}

/// Returns the turns of all rounds. Each round has every way twice, in alternating order.
pub(super) fn in_rounds(rounds: u32) -> Vec<Turn> {
    let forward = Way::ALL.into_iter();
    let both_orders = forward.clone().map(|way| (way, 0)).chain(forward.rev().map(|way| (way, 1)));
    let turn = |round: u32, (way, back)| Turn { way, round, number: 2 * (round - 1) + back };
    (1..=rounds).flat_map(|round| both_orders.clone().map(move |of| turn(round, of))).collect()
}
