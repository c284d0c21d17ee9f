//! The stores of the simulation are like real ones: they keep the same promises.

use std::sync::Arc;

use rand::{SeedableRng, rngs::SmallRng};
use votes::{Book, Tallies};

use crate::{
    history::drive,
    stores::Seat,
    world::{Shared, World},
};

fn open() -> (Arc<dyn Book>, Arc<dyn Tallies>) {
    let seat = Seat::new(&Shared::new(World::new(6, SmallRng::seed_from_u64(0))));
    (seat.book(), seat.tallies())
}

fn book<F: Future<Output = ()>>(promise: impl FnOnce(Arc<dyn Book>) -> F) {
    drive(promise(open().0));
}

fn tallies<F: Future<Output = ()>>(promise: impl FnOnce(Arc<dyn Tallies>) -> F) {
    drive(promise(open().1));
}

fn counting<F: Future<Output = ()>>(promise: impl FnOnce(Arc<dyn Book>, Arc<dyn Tallies>) -> F) {
    let (book, tallies) = open();
    drive(promise(book, tallies));
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

promises!(book:
    a_new_ballot_is_stored_at_its_place
    a_known_ballot_keeps_its_place
    every_known_ballot_of_a_batch_is_named
    the_checkpoint_rises_and_never_falls
    a_checkpoint_over_a_hole_is_refused
    a_checkpoint_remembers_its_last_vote
    a_range_is_half_open_and_in_order
);

promises!(tallies:
    counts_and_position_move_together
    an_addition_from_elsewhere_changes_nothing
    of_many_adders_of_one_range_one_succeeds
    a_snapshot_has_every_key
);

promises!(counting:
    votes_are_counted
    a_repeat_in_one_batch_counts_once
    a_repeat_in_a_later_batch_counts_once
    a_crash_after_inserting_counts_once
    a_crash_after_the_checkpoint_counts_once
    a_replayed_batch_changes_nothing
    a_zombie_changes_nothing
    a_checkpoint_that_fell_back_is_replayed_into_the_book_only
    a_log_that_lost_uncounted_votes_stops_the_partition
    a_log_that_is_too_short_stops_the_partition
    another_log_stops_the_partition
    counting_elsewhere_stops_nobody_who_reconciles
);
