//! What counting, people and the audit need of tallies.

use std::sync::Arc;

use futures::future::{join, join_all};

use super::{NOON, give_up, logged};
use crate::{Added, ContestId, Counts, Offset, Partition, Snapshot, Tallies, UnixMillis, Window};

/// Tries every promise against the tallies that `$open` opens.
#[macro_export]
macro_rules! tallies_conformance {
    ($open:path) => {
        $crate::tallies_conformance!($open:
            counts_and_position_move_together
            an_addition_from_elsewhere_changes_nothing
            of_many_adders_of_one_range_one_succeeds
            the_leaders_are_shown_and_the_rest_is_one_sum
            a_snapshot_has_every_key
            rates_are_counted_by_window
            a_change_wakes_whoever_waits
            clearing_forgets_everything_and_is_a_change
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (tallies, _kept) = $open().await;
            $crate::conformance::tallies::$promise(tallies).await;
        }
    )*};
}

type Store = Arc<dyn Tallies>;

const P: Partition = Partition(4);

/// The counts of the votes `[from, to)`.
fn counts(from: u64, to: u64) -> Counts {
    let votes: Vec<_> = (from..to).map(|n| logged(n, P, n)).collect();
    Counts::of(&votes)
}

async fn add(store: &Store, from: u64, to: u64) -> Added {
    store.add(P, Offset(from), Offset(to), counts(from, to)).await.unwrap()
}

async fn total(store: &Store) -> u64 {
    store.tally(&ContestId::default(), 100).await.unwrap().total
}

pub async fn counts_and_position_move_together(store: Store) {
    assert_eq!(store.position(P).await.unwrap(), Offset(0));
    assert_eq!(add(&store, 0, 10).await, Added::Added);
    assert_eq!(add(&store, 10, 25).await, Added::Added);
    assert_eq!(store.position(P).await.unwrap(), Offset(25));
    assert_eq!(store.position(Partition(5)).await.unwrap(), Offset(0));
    let tally = store.tally(&ContestId::default(), 100).await.unwrap();
    assert_eq!((tally.total, tally.processed), (25, 25));
}

pub async fn an_addition_from_elsewhere_changes_nothing(store: Store) {
    add(&store, 0, 10).await;
    let before = store.snapshot().await.unwrap();
    for (from, to) in [(0, 10), (9, 12), (11, 12), (5, 20)] {
        assert_eq!(add(&store, from, to).await, Added::Fenced(Offset(10)));
    }
    assert_eq!(store.snapshot().await.unwrap(), before);
}

pub async fn of_many_adders_of_one_range_one_succeeds(store: Store) {
    let outcomes = join_all((0..16).map(|_| add(&store, 0, 5))).await;
    assert_eq!(outcomes.iter().filter(|added| **added == Added::Added).count(), 1);
    assert_eq!(total(&store).await, 5);
}

pub async fn the_leaders_are_shown_and_the_rest_is_one_sum(store: Store) {
    // Votes 0 to 9 are for Band 0 to Band 6, and the first three again.
    add(&store, 0, 10).await;
    let tally = store.tally(&ContestId::default(), 2).await.unwrap();
    let leaders: Vec<_> = tally.bands.iter().map(|band| (band.name.as_str(), band.votes)).collect();
    assert_eq!(leaders, vec![("Band 0", 2), ("Band 1", 2)]);
    assert!((tally.bands[0].share - 0.2).abs() < 1e-9);
    assert_eq!((tally.others.bands, tally.others.votes), (5, 6));
    assert_eq!((tally.doors["rest"], tally.doors["grpc"]), (5, 5));
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
    // Votes are 7 ms apart; fine windows may already have expired, minutes never do.
    add(&store, 0, 100).await;
    let (from, to) = (NOON, UnixMillis(NOON.0 + 60_000));
    let minutes = store.rates(None, Window::Minute, from, to).await.unwrap();
    assert_eq!(minutes.iter().map(|window| (window.start, window.votes)).collect::<Vec<_>>(), vec![(NOON, 100)]);
    let other = "other".parse().unwrap();
    assert_eq!(store.rates(Some(&other), Window::Minute, from, to).await.unwrap(), vec![]);
    assert_eq!(store.rates(None, Window::Minute, to, UnixMillis(to.0 + 60_000)).await.unwrap(), vec![]);
}

pub async fn a_change_wakes_whoever_waits(store: Store) {
    let seen = store.tally(&ContestId::default(), 1).await.unwrap().version;
    assert!(give_up(store.changed(seen)).is_pending());
    let (version, _) = join(store.changed(seen), add(&store, 0, 1)).await;
    let version = version.unwrap();
    assert!(version > seen);
    assert_eq!(store.tally(&ContestId::default(), 1).await.unwrap().version, version);
}

pub async fn clearing_forgets_everything_and_is_a_change(store: Store) {
    add(&store, 0, 50).await;
    let seen = store.tally(&ContestId::default(), 1).await.unwrap().version;
    let (version, cleared) = join(store.changed(seen), store.clear()).await;
    cleared.unwrap();
    assert!(version.unwrap() > seen);
    assert_eq!(store.snapshot().await.unwrap(), Snapshot::default());
    assert_eq!(store.position(P).await.unwrap(), Offset(0));
    let (from, to) = (UnixMillis(0), UnixMillis(NOON.0 * 2));
    assert_eq!(store.rates(None, Window::Minute, from, to).await.unwrap(), vec![]);
    assert_eq!(store.albums(&ContestId::default(), 9).await.unwrap(), vec![]);
    let tally = store.tally(&ContestId::default(), 100).await.unwrap();
    assert_eq!((tally.total, tally.processed), (0, 0));
    // A consumer that knows nothing of it is told, and begins again.
    assert_eq!(add(&store, 50, 60).await, Added::Fenced(Offset(0)));
    assert_eq!(add(&store, 0, 60).await, Added::Added);
    assert_eq!(total(&store).await, 60);
}
