//! The simulated stores pass these promises of the conformance suites of the real stores.

use std::sync::Arc;

use rand::{SeedableRng, rngs::SmallRng};
use votes::{Tallies, WholeLedger};

use crate::{
    history::run_simulated,
    process::Process,
    world::{ProcessKind, SharedWorld, World},
};

fn open() -> (Arc<dyn WholeLedger>, Arc<dyn Tallies>) {
    let mut world = World::new(8, SmallRng::seed_from_u64(0));
    world.is_immediate = true;
    let process = Process::new(&SharedWorld::new(world), ProcessKind::Other);
    (process.ledger(), process.tallies())
}

fn ledger<F: Future<Output = ()>>(promise: impl FnOnce(Arc<dyn WholeLedger>) -> F) {
    run_simulated(promise(open().0));
}

fn tallies<F: Future<Output = ()>>(promise: impl FnOnce(Arc<dyn Tallies>) -> F) {
    run_simulated(promise(open().1));
}

fn counting<F: Future<Output = ()>>(promise: impl FnOnce(Arc<dyn WholeLedger>, Arc<dyn Tallies>) -> F) {
    let (ledger, tallies) = open();
    run_simulated(promise(ledger, tallies));
}

macro_rules! promises {
    ($suite:ident: $($promise:ident)*) => {
        mod $suite {
            $(
                #[test]
                fn $promise() {
                    super::$suite(votes::conformance::$suite::$promise);
                }
            )*
        }
    };
}

promises!(ledger:
    a_new_ballot_is_stored_at_its_position
    a_known_ballot_keeps_its_position
    every_known_ballot_of_a_batch_is_returned
    the_checkpoint_is_raised_and_never_lowered
    a_checkpoint_over_a_hole_is_refused
    a_checkpoint_has_its_last_vote
    a_range_is_half_open_and_ordered
);

promises!(tallies:
    counts_and_position_move_together
    an_addition_from_another_position_changes_nothing
    a_position_has_its_last_vote
    tallies_are_cleared_only_at_the_expected_position
    of_concurrent_clears_for_one_loss_one_succeeds
    of_concurrent_additions_of_one_range_one_succeeds
    a_snapshot_has_every_key
);

promises!(counting:
    votes_are_counted
    a_duplicate_in_the_same_batch_does_not_count
    a_duplicate_in_a_later_batch_does_not_count
    a_crash_after_the_insert_loses_and_doubles_no_vote
    a_crash_after_the_checkpoint_loses_and_doubles_no_vote
    a_replayed_batch_changes_nothing
    a_zombie_changes_nothing
    a_restored_ledger_is_replayed_without_changing_the_tallies
    a_log_that_lost_uncounted_votes_halts_the_partition
    a_log_that_is_too_short_halts_the_partition
    another_log_halts_the_partition
    tallies_of_another_log_halt_the_partition
    the_last_vote_of_the_tallies_is_on_the_log
    another_consumer_that_counts_does_not_halt_a_reconciling_one
);
