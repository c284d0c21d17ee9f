//! This suite tests what counting, the results and the audit need from tallies.

use std::sync::Arc;

use futures::future::{join, join_all, join3};

use super::{NOON, logged, poll_once, vote_id};
use crate::{
    Added, ClearCondition, ContestCounts, ContestId, Counts, Offset, Partition, Snapshot, Tallies, TalliesPosition,
    UnixMillis, Window,
};

/// Tests every promise with the tallies that `$open` opens.
#[macro_export]
macro_rules! tallies_conformance {
    ($open:path) => {
        $crate::tallies_conformance!($open:
            counts_and_position_move_together
            an_addition_from_another_position_changes_nothing
            a_position_has_its_last_vote
            of_concurrent_additions_of_one_range_one_succeeds
            a_tally_has_the_leading_bands_and_the_sum_of_the_others
            a_snapshot_has_every_key
            rates_are_counted_by_window
            a_change_wakes_the_waiting_readers
            clearing_deletes_everything_and_raises_the_version
            tallies_are_cleared_only_at_the_expected_position
            of_concurrent_clears_for_one_loss_one_succeeds
            an_addition_of_many_names_is_one_step
            an_announced_recount_ends_when_its_position_is_reached
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (tallies, _guard) = $open().await;
            $crate::conformance::tallies::$promise(tallies).await;
        }
    )*};
}

type Store = Arc<dyn Tallies>;

/// The partition of most tests.
const P: Partition = Partition(4);

/// Returns the counts of the votes `[from, to)`.
fn counts(from: u64, to: u64) -> Counts {
    let votes: Vec<_> = (from..to).map(|n| logged(n, P, n)).collect();
    Counts::of(&votes)
}

async fn add(store: &Store, from: u64, to: u64) -> Added {
    add_to(store, P, from, to).await
}

async fn add_to(store: &Store, partition: Partition, from: u64, to: u64) -> Added {
    store.add(partition, Offset(from), Offset(to).into(), counts(from, to)).await.unwrap()
}

async fn position(store: &Store, partition: Partition) -> Offset {
    store.position(partition).await.unwrap().offset
}

async fn total(store: &Store) -> u64 {
    store.tally(&ContestId::default(), 100).await.unwrap().total
}

pub async fn counts_and_position_move_together(store: Store) {
    assert_eq!(store.position(P).await.unwrap(), TalliesPosition::default());
    assert_eq!(add(&store, 0, 10).await, Added::Added);
    assert_eq!(add(&store, 10, 25).await, Added::Added);
    assert_eq!(position(&store, P).await, Offset(25));
    assert_eq!(position(&store, Partition(5)).await, Offset(0));
    let tally = store.tally(&ContestId::default(), 100).await.unwrap();
    assert_eq!((tally.total, tally.processed), (25, 25));
}

pub async fn an_addition_from_another_position_changes_nothing(store: Store) {
    add(&store, 0, 10).await;
    let before = store.snapshot().await.unwrap();
    for (from, to) in [(0, 10), (9, 12), (11, 12), (5, 20)] {
        assert_eq!(add(&store, from, to).await, Added::Fenced(Offset(10)));
    }
    assert_eq!(store.snapshot().await.unwrap(), before);
}

pub async fn a_position_has_its_last_vote(store: Store) {
    let add = async |from, offset, last| {
        store
            .add(P, Offset(from), TalliesPosition { offset: Offset(offset), last }, counts(from, offset))
            .await
            .unwrap()
    };
    let last = |n: u64| Some((Offset(n), vote_id(n)));
    let position = |offset, last| TalliesPosition { offset: Offset(offset), last };
    assert_eq!(add(0, 10, last(9)).await, Added::Added);
    assert_eq!(store.position(P).await.unwrap(), position(10, last(9)));
    // An addition without votes keeps the last vote. A fenced addition changes nothing.
    assert_eq!(add(10, 12, None).await, Added::Added);
    assert_eq!(store.position(P).await.unwrap(), position(12, last(9)));
    assert_eq!(add(10, 14, last(13)).await, Added::Fenced(Offset(12)));
    assert_eq!(store.position(P).await.unwrap(), position(12, last(9)));
    assert_eq!(add(12, 20, last(18)).await, Added::Added);
    assert_eq!(store.position(P).await.unwrap(), position(20, last(18)));
    assert_eq!(store.position(Partition(5)).await.unwrap(), TalliesPosition::default());
    assert!(store.clear(ClearCondition::Always).await.unwrap());
    assert_eq!(store.position(P).await.unwrap(), TalliesPosition::default());
}

pub async fn of_concurrent_additions_of_one_range_one_succeeds(store: Store) {
    let outcomes = join_all((0..16).map(|_| add(&store, 0, 5))).await;
    assert_eq!(outcomes.iter().filter(|added| **added == Added::Added).count(), 1);
    assert_eq!(total(&store).await, 5);
}

pub async fn a_tally_has_the_leading_bands_and_the_sum_of_the_others(store: Store) {
    // Votes 0 to 6 are for Band 0 to Band 6, and votes 7 to 9 for Band 0 to Band 2.
    add(&store, 0, 10).await;
    let tally = store.tally(&ContestId::default(), 2).await.unwrap();
    let leaders: Vec<_> = tally.bands.iter().map(|band| (band.name.as_str(), band.votes)).collect();
    assert_eq!(leaders, vec![("Band 0", 2), ("Band 1", 2)]);
    assert!((tally.bands[0].share - 0.2).abs() < 1e-9);
    assert_eq!((tally.others.bands, tally.others.votes), (5, 6));
    assert_eq!((tally.producers["rest"], tally.producers["grpc"]), (5, 5));
    let albums = store.albums(&ContestId::default(), 1).await.unwrap();
    assert_eq!(albums.len(), 1);
    let empty = store.tally(&"other".parse().unwrap(), 2).await.unwrap();
    assert_eq!((empty.total, empty.bands.len(), empty.processed), (0, 0, 10));
}

pub async fn a_snapshot_has_every_key(store: Store) {
    add(&store, 0, 50).await;
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.positions.iter().collect::<Vec<_>>(), vec![(&P, &Offset(50))]);
    let mut expected = counts(0, 50);
    let mut stored = Counts { contests: snapshot.contests };
    for counts in stored.contests.values_mut().chain(expected.contests.values_mut()) {
        counts.windows.retain(|(window, _), _| *window == Window::Minute);
    }
    assert_eq!(stored, expected);
}

pub async fn rates_are_counted_by_window(store: Store) {
    // The votes are 7 ms apart. Smaller windows may have expired already. The windows of a minute never expire.
    add(&store, 0, 100).await;
    let (from, to) = (NOON, UnixMillis(NOON.0 + 60_000));
    let minutes = store.rates(None, Window::Minute, from, to).await.unwrap();
    assert_eq!(minutes.iter().map(|window| (window.start, window.votes)).collect::<Vec<_>>(), vec![(NOON, 100)]);
    let other = "other".parse().unwrap();
    assert_eq!(store.rates(Some(&other), Window::Minute, from, to).await.unwrap(), vec![]);
    assert_eq!(store.rates(None, Window::Minute, to, UnixMillis(to.0 + 60_000)).await.unwrap(), vec![]);
}

pub async fn a_change_wakes_the_waiting_readers(store: Store) {
    let before = store.tally(&ContestId::default(), 1).await.unwrap().version;
    assert!(poll_once(store.changed(before)).is_pending());
    let (version, _) = join(store.changed(before), add(&store, 0, 1)).await;
    let version = version.unwrap();
    assert!(version > before);
    assert_eq!(store.tally(&ContestId::default(), 1).await.unwrap().version, version);
}

pub async fn clearing_deletes_everything_and_raises_the_version(store: Store) {
    add(&store, 0, 50).await;
    let before = store.tally(&ContestId::default(), 1).await.unwrap().version;
    let (version, cleared) = join(store.changed(before), store.clear(ClearCondition::Always)).await;
    assert!(cleared.unwrap());
    assert!(version.unwrap() > before);
    assert_eq!(store.snapshot().await.unwrap(), Snapshot::default());
    assert_eq!(position(&store, P).await, Offset(0));
    let (from, to) = (UnixMillis(0), UnixMillis(NOON.0 * 2));
    assert_eq!(store.rates(None, Window::Minute, from, to).await.unwrap(), vec![]);
    assert_eq!(store.albums(&ContestId::default(), 9).await.unwrap(), vec![]);
    let tally = store.tally(&ContestId::default(), 100).await.unwrap();
    assert_eq!((tally.total, tally.processed), (0, 0));
    // A consumer that continues from the position before the clearing is fenced, and begins again at 0.
    assert_eq!(add(&store, 50, 60).await, Added::Fenced(Offset(0)));
    assert_eq!(add(&store, 0, 60).await, Added::Added);
    assert_eq!(total(&store).await, 60);
}

pub async fn tallies_are_cleared_only_at_the_expected_position(store: Store) {
    let other = Partition(5);
    add(&store, 0, 50).await;
    add_to(&store, other, 0, 20).await;
    let (before, version) =
        (store.snapshot().await.unwrap(), store.tally(&ContestId::default(), 1).await.unwrap().version);
    for (partition, offset) in [(P, 0), (P, 20), (P, 49), (P, 51), (other, 50), (Partition(6), 50)] {
        assert!(!store.clear(ClearCondition::IfAt(partition, Offset(offset))).await.unwrap());
    }
    assert_eq!(store.snapshot().await.unwrap(), before);
    assert_eq!(store.tally(&ContestId::default(), 1).await.unwrap().version, version);
    assert!(store.clear(ClearCondition::IfAt(P, Offset(50))).await.unwrap());
    assert_eq!(store.snapshot().await.unwrap(), Snapshot::default());
    // The other partition found the same loss. It clears nothing, so what was counted again stays.
    add(&store, 0, 10).await;
    assert!(!store.clear(ClearCondition::IfAt(other, Offset(20))).await.unwrap());
    assert!(!store.clear(ClearCondition::IfAt(P, Offset(50))).await.unwrap());
    assert_eq!((total(&store).await, position(&store, P).await), (10, Offset(10)));
}

pub async fn of_concurrent_clears_for_one_loss_one_succeeds(store: Store) {
    let partitions = || (0..6).map(Partition);
    for _ in 0..5 {
        join_all(partitions().map(|partition| add_to(&store, partition, 0, 7))).await;
        let cleared = join_all(partitions().map(async |partition| {
            let cleared = store.clear(ClearCondition::IfAt(partition, Offset(7))).await.unwrap();
            // Each partition counts again at once, as a consumer does.
            assert_eq!(add_to(&store, partition, 0, 3).await, Added::Added);
            cleared
        }))
        .await;
        assert_eq!(cleared.iter().filter(|cleared| **cleared).count(), 1);
        assert_eq!(total(&store).await, 6 * 3);
        assert!(store.clear(ClearCondition::Always).await.unwrap());
    }
}

pub async fn an_addition_of_many_names_is_one_step(store: Store) {
    // A summary of expired votes may have any number of names.
    let names = 6_000;
    let counts = ContestCounts {
        bands: (0..names).map(|n| (format!("Band {n}"), n + 1)).collect(),
        albums: (0..names).map(|n| ((format!("Band {n}"), format!("Album {n}")), n + 1)).collect(),
        ..ContestCounts::default()
    };
    let counts = Counts { contests: [(ContestId::default(), counts)].into() };
    let votes = counts.total();
    let add = || store.add(P, Offset(0), Offset(votes).into(), counts.clone());
    // A reader sees the position and all counts, or nothing.
    let read = async {
        loop {
            let tally = store.tally(&ContestId::default(), 1).await.unwrap();
            assert_eq!(tally.total, tally.processed);
            if tally.total > 0 {
                break;
            }
        }
    };
    let (first, second, ()) = join3(add(), add(), read).await;
    let mut outcomes = [first.unwrap(), second.unwrap()];
    outcomes.sort_by_key(|added| *added != Added::Added);
    assert_eq!(outcomes, [Added::Added, Added::Fenced(Offset(votes))]);
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(Counts { contests: snapshot.contests }, counts);
    // A second addition adds to the same names.
    assert_eq!(store.add(Partition(5), Offset(0), Offset(votes).into(), counts.clone()).await.unwrap(), Added::Added);
    assert_eq!(total(&store).await, 2 * votes);
    assert_eq!(store.tally(&ContestId::default(), 1).await.unwrap().bands[0].votes, 2 * names);
}

/// A tally says that votes are counted again, from the announcement until T has reached the announced position.
pub async fn an_announced_recount_ends_when_its_position_is_reached(tallies: Store) {
    let is_recounting = async || tallies.tally(&ContestId::default(), 1).await.unwrap().recounting;
    assert!(!is_recounting().await);
    tallies.announce_recount(P, Offset(10)).await.unwrap();
    assert!(is_recounting().await, "nothing is counted");
    add(&tallies, 0, 9).await;
    assert!(is_recounting().await, "one record is missing");
    add(&tallies, 9, 12).await;
    assert!(!is_recounting().await, "everything is counted");
    assert!(tallies.clear(ClearCondition::Always).await.unwrap());
    assert!(is_recounting().await, "everything is lost again");
}
