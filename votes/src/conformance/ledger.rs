//! This suite tests what counting, the audit, retention and operators need from a ledger.

use std::{sync::Arc, time::Duration};

use futures::future::{join, join_all};

use super::{key, logged, vote_id};
use crate::{
    Advanced, Checkpoint, Counts, Duplicate, LogPosition, LoggedVote, Offset, Partition, Purged, Summary, WholeLedger,
};

/// Tests every promise with the ledger that `$open` opens.
#[macro_export]
macro_rules! ledger_conformance {
    ($open:path) => {
        $crate::ledger_conformance!($open:
            a_new_ballot_is_stored_at_its_position
            a_known_ballot_keeps_its_position
            every_known_ballot_of_a_batch_is_returned
            the_checkpoint_is_raised_and_never_lowered
            a_checkpoint_over_a_hole_is_refused
            a_checkpoint_has_its_last_vote
            a_rewound_checkpoint_has_no_last_vote
            a_range_is_half_open_and_ordered
            a_duplicate_is_recorded_once
            many_duplicates_are_recorded_at_once
            a_duplicate_of_a_purged_vote_is_not_recorded_as_such
            a_summary_grows_only_at_the_given_cut_off
            compacting_a_summary_changes_no_count
            purging_leaves_the_originals_of_later_duplicates
            purging_leaves_an_original_that_gets_a_duplicate_after_it_has_expired
            duplicates_are_purged_up_to_a_limit
            a_checkpoint_with_another_cut_off_is_refused
            the_size_follows_the_votes
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (ledger, _guard) = $open().await;
            $crate::conformance::ledger::$promise(ledger).await;
        }
    )*};
}

type Store = Arc<dyn WholeLedger>;

/// The partition of most tests.
const P: Partition = Partition(4);

fn votes(positions: &[(u64, u64)]) -> Arc<[LoggedVote]> {
    positions.iter().map(|(n, offset)| logged(*n, P, *offset)).collect()
}

fn at(offset: u64) -> Option<LogPosition> {
    Some(LogPosition { partition: P, offset: Offset(offset) })
}

pub async fn a_new_ballot_is_stored_at_its_position(ledger: Store) {
    let stored = votes(&[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    assert_eq!(ledger.insert(Arc::clone(&stored)).await.unwrap(), Vec::<usize>::new());
    assert_eq!(ledger.positions_of(vec![key(1), key(9), key(0)]).await.unwrap(), vec![at(1), None, at(0)]);
    assert_eq!(ledger.range(P, Offset(0), Offset(6), 10).await.unwrap(), stored.to_vec());
}

pub async fn a_known_ballot_keeps_its_position(ledger: Store) {
    ledger.insert(votes(&[(0, 5)])).await.unwrap();
    assert_eq!(ledger.insert(votes(&[(0, 9)])).await.unwrap(), vec![0]);
    assert_eq!(ledger.positions_of(vec![key(0)]).await.unwrap(), vec![at(5)]);
    assert_eq!(ledger.range(P, Offset(0), Offset(100), 10).await.unwrap(), votes(&[(0, 5)]).to_vec());
}

pub async fn every_known_ballot_of_a_batch_is_returned(ledger: Store) {
    let batch = votes(&[(0, 0), (1, 1), (2, 2), (3, 3)]);
    ledger.insert(votes(&[(1, 1), (3, 3)])).await.unwrap();
    let mut known = ledger.insert(Arc::clone(&batch)).await.unwrap();
    known.sort_unstable();
    assert_eq!(known, vec![1, 3]);
    let mut known = ledger.insert(batch).await.unwrap();
    known.sort_unstable();
    assert_eq!(known, vec![0, 1, 2, 3]);
}

pub async fn the_checkpoint_is_raised_and_never_lowered(ledger: Store) {
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint::default());
    let advance = |from: u64, to: u64| {
        ledger.advance_checkpoint(P, Offset(from), Checkpoint { offset: Offset(to), last: None, cut_off: Offset(0) })
    };
    assert_eq!(advance(0, 10).await.unwrap(), Advanced::Done);
    assert_eq!(advance(0, 5).await.unwrap(), Advanced::Done);
    assert_eq!(ledger.checkpoint(P).await.unwrap().offset, Offset(10));
    assert_eq!(advance(8, 12).await.unwrap(), Advanced::Done);
    assert_eq!(ledger.checkpoint(P).await.unwrap().offset, Offset(12));
    assert_eq!(ledger.checkpoint(Partition(5)).await.unwrap(), Checkpoint::default());
}

pub async fn a_checkpoint_over_a_hole_is_refused(ledger: Store) {
    let advance = |from: u64, to: u64| {
        ledger.advance_checkpoint(P, Offset(from), Checkpoint { offset: Offset(to), last: None, cut_off: Offset(0) })
    };
    assert_eq!(advance(3, 10).await.unwrap(), Advanced::Hole(Offset(0)));
    advance(0, 4).await.unwrap();
    assert_eq!(advance(5, 10).await.unwrap(), Advanced::Hole(Offset(4)));
    assert_eq!(ledger.checkpoint(P).await.unwrap().offset, Offset(4));
}

pub async fn a_checkpoint_has_its_last_vote(ledger: Store) {
    let last = Some((Offset(7), vote_id(7)));
    ledger.advance_checkpoint(P, Offset(0), Checkpoint { offset: Offset(8), last, cut_off: Offset(0) }).await.unwrap();
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(8), last, cut_off: Offset(0) });
    // A batch without votes does not clear the last vote.
    ledger
        .advance_checkpoint(P, Offset(8), Checkpoint { offset: Offset(9), last: None, cut_off: Offset(0) })
        .await
        .unwrap();
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(9), last, cut_off: Offset(0) });
}

pub async fn a_rewound_checkpoint_has_no_last_vote(ledger: Store) {
    ledger.insert(votes(&[(0, 0), (7, 7)])).await.unwrap();
    ledger
        .advance_checkpoint(
            P,
            Offset(0),
            Checkpoint { offset: Offset(8), last: Some((Offset(7), vote_id(7))), cut_off: Offset(0) },
        )
        .await
        .unwrap();
    ledger.rewind(P, Offset(3)).await.unwrap();
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(3), last: None, cut_off: Offset(0) });
    assert_eq!(ledger.positions_of(vec![key(0), key(7)]).await.unwrap(), vec![at(0), at(7)]);
    // A partition without a checkpoint can be rewound, too.
    ledger.rewind(Partition(5), Offset(20)).await.unwrap();
    assert_eq!(
        ledger.checkpoint(Partition(5)).await.unwrap(),
        Checkpoint { offset: Offset(20), last: None, cut_off: Offset(0) }
    );
}

pub async fn a_range_is_half_open_and_ordered(ledger: Store) {
    ledger.insert(votes(&[(5, 5), (1, 1), (9, 9), (3, 3)])).await.unwrap();
    ledger.insert(Arc::from([logged(20, Partition(5), 2)])).await.unwrap();
    let offsets = |votes: Vec<LoggedVote>| votes.iter().map(|logged| logged.position.offset.0).collect::<Vec<_>>();
    assert_eq!(offsets(ledger.range(P, Offset(1), Offset(9), 10).await.unwrap()), vec![1, 3, 5]);
    assert_eq!(offsets(ledger.range(P, Offset(0), Offset(10), 2).await.unwrap()), vec![1, 3]);
    assert_eq!(offsets(ledger.range(P, Offset(4), Offset(10), usize::MAX).await.unwrap()), vec![5, 9]);
}

/// Returns the duplicate at this offset of vote `n`, whose original is at the offset `original`.
fn duplicate(offset: u64, n: u64, original: u64) -> Duplicate {
    let position = LogPosition { partition: P, offset: Offset(offset) };
    Duplicate { position, key: key(n), original: Offset(original) }
}

/// Returns the summary of these votes.
fn summary(cut_off: u64, votes: &[LoggedVote]) -> Summary {
    let mut counts = Counts::of(votes);
    counts.drop_expiring_windows();
    Summary { cut_off: Offset(cut_off), counts, youngest_expired: None }
}

/// Moves the cut-off of a partition without votes below it.
async fn raise_cut_off(ledger: &Store, from: u64, to: u64) {
    assert!(ledger.add_to_summary(P, Offset(from), summary(to, &[])).await.unwrap());
}

/// Purges all votes and duplicates below the cut-off. Returns the number of deleted votes.
async fn purge(ledger: &Store) -> u64 {
    ledger.clean_summary(P).await.unwrap();
    let cut_off = ledger.checkpoint(P).await.unwrap().cut_off;
    let expired = ledger.range(P, Offset(0), cut_off, usize::MAX).await.unwrap();
    let expired = expired.into_iter().map(|logged| (logged.vote.key, logged.position.offset)).collect();
    let purged = ledger.purge_expired(P, expired, 1_000).await.unwrap();
    assert!(purged.is_done);
    purged.votes
}

pub async fn a_duplicate_is_recorded_once(ledger: Store) {
    ledger.insert(votes(&[(1, 1), (2, 2)])).await.unwrap();
    assert!(ledger.record_duplicates(vec![duplicate(7, 2, 2), duplicate(3, 1, 1)]).await.unwrap());
    assert!(ledger.record_duplicates(vec![duplicate(9, 2, 2), duplicate(7, 2, 2)]).await.unwrap());
    let recorded = ledger.duplicates(P, Offset(3), Offset(9)).await.unwrap();
    assert_eq!(recorded, vec![duplicate(3, 1, 1), duplicate(7, 2, 2)]);
    assert_eq!(ledger.duplicates(P, Offset(8), Offset(u64::MAX)).await.unwrap(), vec![duplicate(9, 2, 2)]);
    assert_eq!(ledger.duplicates(Partition(5), Offset(0), Offset(9)).await.unwrap(), vec![]);
}

pub async fn many_duplicates_are_recorded_at_once(ledger: Store) {
    let batch = 300;
    ledger.insert((0..batch).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let duplicates: Vec<_> = (0..batch).map(|n| duplicate(batch + n, n, n)).collect();
    // Other consumers write meanwhile.
    let others = (0..4).map(|n| ledger.insert(Arc::from([logged(batch + n, Partition(5), n)])));
    let (recorded, others) = join(ledger.record_duplicates(duplicates.clone()), join_all(others)).await;
    assert!(recorded.unwrap());
    assert!(others.iter().all(|known| known.as_ref().is_ok_and(Vec::is_empty)));
    assert_eq!(ledger.duplicates(P, Offset(0), Offset(u64::MAX)).await.unwrap(), duplicates);
}

pub async fn a_duplicate_of_a_purged_vote_is_not_recorded_as_such(ledger: Store) {
    ledger.insert(votes(&[(0, 0), (1, 1)])).await.unwrap();
    assert!(ledger.record_duplicates(vec![duplicate(2, 0, 0), duplicate(3, 0, 0), duplicate(4, 1, 1)]).await.unwrap());
    raise_cut_off(&ledger, 0, 4).await;
    assert_eq!(purge(&ledger).await, 1);
    assert!(!ledger.record_duplicates(vec![duplicate(6, 1, 1), duplicate(7, 0, 0)]).await.unwrap());
    // Another vote of the ballot is not its original.
    ledger.insert(votes(&[(0, 7)])).await.unwrap();
    assert!(!ledger.record_duplicates(vec![duplicate(8, 0, 0)]).await.unwrap());
    assert!(ledger.record_duplicates(vec![duplicate(8, 0, 7)]).await.unwrap());
}

pub async fn a_summary_grows_only_at_the_given_cut_off(ledger: Store) {
    assert_eq!(ledger.summary(P).await.unwrap(), Summary::default());
    let mut votes = votes(&[(0, 0), (1, 1), (2, 2), (3, 3), (8, 4)]).to_vec();
    "a.b $c \"d\" \u{1F3B8}".clone_into(&mut votes[1].vote.name);
    votes[2].vote.contest = "final".parse().unwrap();
    let aged = |summary, seconds| Summary { youngest_expired: Some(Duration::from_secs(seconds)), ..summary };
    assert!(ledger.add_to_summary(P, Offset(0), aged(summary(3, &votes[..3]), 90)).await.unwrap());
    assert_eq!(ledger.summary(P).await.unwrap(), aged(summary(3, &votes[..3]), 90));
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint { cut_off: Offset(3), ..Checkpoint::default() });
    // Votes that expire from another cut-off are refused.
    assert!(!ledger.add_to_summary(P, Offset(0), summary(5, &votes)).await.unwrap());
    assert_eq!(ledger.summary(P).await.unwrap(), aged(summary(3, &votes[..3]), 90));
    assert!(ledger.add_to_summary(P, Offset(3), aged(summary(5, &votes[3..]), 80)).await.unwrap());
    assert_eq!(ledger.summary(P).await.unwrap(), aged(summary(5, &votes), 80));
    assert!(ledger.add_to_summary(P, Offset(5), aged(summary(9, &votes[4..]), 85)).await.unwrap());
    let last: Vec<_> = votes.iter().chain(&votes[4..]).cloned().collect();
    assert_eq!(ledger.summary(P).await.unwrap(), aged(summary(9, &last), 80));
    assert_eq!(ledger.summary(Partition(5)).await.unwrap(), Summary::default());
    // A new checkpoint does not change the summary.
    ledger
        .advance_checkpoint(P, Offset(0), Checkpoint { offset: Offset(9), last: None, cut_off: Offset(9) })
        .await
        .unwrap();
    ledger.rewind(P, Offset(2)).await.unwrap();
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(2), last: None, cut_off: Offset(9) });
    assert_eq!(ledger.summary(P).await.unwrap(), aged(summary(9, &last), 80));
}

pub async fn compacting_a_summary_changes_no_count(ledger: Store) {
    let mut expected = Summary::default();
    ledger.compact_summary(P).await.unwrap();
    for n in 0..40 {
        let expired = summary(n + 1, &votes(&[(n, n)]));
        assert!(ledger.add_to_summary(P, Offset(n), expired.clone()).await.unwrap());
        expected.add(expired);
        if n % 3 == 0 {
            ledger.compact_summary(P).await.unwrap();
            assert_eq!(ledger.summary(P).await.unwrap(), expected);
        }
    }
    // What a process that ended left behind is removed before the first votes are purged.
    purge(&ledger).await;
    assert_eq!(ledger.summary(P).await.unwrap(), expected);
}

pub async fn purging_leaves_the_originals_of_later_duplicates(ledger: Store) {
    let stored = votes(&[(0, 0), (1, 1), (2, 2), (3, 6), (4, 7)]);
    ledger.insert(Arc::clone(&stored)).await.unwrap();
    ledger.insert(Arc::from([logged(20, Partition(5), 0)])).await.unwrap();
    let (kept, first) = ([duplicate(8, 1, 1), duplicate(9, 3, 6)], [duplicate(3, 0, 0), duplicate(4, 1, 1)]);
    assert!(ledger.record_duplicates(first.into_iter().chain(kept.clone()).collect()).await.unwrap());
    assert_eq!(purge(&ledger).await, 0, "nothing has expired");
    assert!(ledger.add_to_summary(P, Offset(0), summary(5, &stored[..3])).await.unwrap());
    assert_eq!(purge(&ledger).await, 2);
    // The ledger still has vote 1, because its duplicate at offset 8 has not expired.
    assert_eq!(ledger.positions_of((0..5).map(key).collect()).await.unwrap(), vec![None, at(1), None, at(6), at(7)]);
    assert_eq!(ledger.range(P, Offset(5), Offset(9), 9).await.unwrap(), stored[3..].to_vec());
    assert_eq!(ledger.duplicates(P, Offset(0), Offset(99)).await.unwrap(), kept);
    assert_eq!(ledger.positions_of(vec![key(20)]).await.unwrap()[0].unwrap().partition, Partition(5));
    // Vote 1 is deleted together with its last duplicate.
    assert!(ledger.add_to_summary(P, Offset(5), summary(9, &stored[3..])).await.unwrap());
    assert_eq!(ledger.purge_expired(P, vec![], 1_000).await.unwrap(), Purged { votes: 1, is_done: true });
    // Votes at or after the cut-off and votes at other positions stay.
    let named = [(3, 6), (4, 7), (4, 2), (20, 0)].map(|(n, offset)| (key(n), Offset(offset)));
    assert_eq!(ledger.purge_expired(P, named.to_vec(), 1_000).await.unwrap().votes, 1);
    assert_eq!(ledger.positions_of((0..5).map(key).collect()).await.unwrap(), vec![None, None, None, at(6), None]);
    assert!(ledger.positions_of(vec![key(20)]).await.unwrap()[0].is_some());
    assert_eq!(purge(&ledger).await, 0);
}

pub async fn purging_leaves_an_original_that_gets_a_duplicate_after_it_has_expired(ledger: Store) {
    ledger.insert(votes(&[(0, 0), (1, 1)])).await.unwrap();
    raise_cut_off(&ledger, 0, 2).await;
    assert!(ledger.record_duplicates(vec![duplicate(5, 1, 1)]).await.unwrap());
    assert_eq!(purge(&ledger).await, 1);
    assert_eq!(ledger.positions_of(vec![key(0), key(1)]).await.unwrap(), vec![None, at(1)]);
    raise_cut_off(&ledger, 2, 6).await;
    assert_eq!(purge(&ledger).await, 1);
    assert_eq!(ledger.positions_of(vec![key(1)]).await.unwrap(), vec![None]);
}

pub async fn duplicates_are_purged_up_to_a_limit(ledger: Store) {
    ledger.insert((0..100).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let duplicates = (0..100).map(|n| duplicate(100 + n, n % 10, n % 10)).collect();
    assert!(ledger.record_duplicates(duplicates).await.unwrap());
    raise_cut_off(&ledger, 0, 200).await;
    let (mut calls, mut deleted) = (0, 0);
    loop {
        let named = (10..40).map(|n| (key(n), Offset(n))).collect();
        let purged = ledger.purge_expired(P, named, 30).await.unwrap();
        (calls, deleted) = (calls + 1, deleted + purged.votes);
        if purged.is_done {
            break;
        }
    }
    // The named votes, and the ten originals.
    assert_eq!(deleted, 40);
    assert!((3..=4).contains(&calls), "{calls} calls for 100 duplicates");
    assert_eq!(ledger.duplicates(P, Offset(0), Offset(999)).await.unwrap(), vec![]);
    assert_eq!(ledger.range(P, Offset(0), Offset(999), 999).await.unwrap().len(), 60);
}

pub async fn a_checkpoint_with_another_cut_off_is_refused(ledger: Store) {
    let advance = |to: u64, cut_off: u64| {
        let checkpoint = Checkpoint { offset: Offset(to), last: None, cut_off: Offset(cut_off) };
        ledger.advance_checkpoint(P, Offset(0), checkpoint)
    };
    assert_eq!(advance(6, 0).await.unwrap(), Advanced::Done);
    raise_cut_off(&ledger, 0, 4).await;
    assert_eq!(advance(8, 0).await.unwrap(), Advanced::CutOffMoved(Offset(4)));
    // The checkpoint is refused even if B has this value already: the consumer may have looked up the duplicates before
    // the cut-off moved.
    assert_eq!(advance(6, 0).await.unwrap(), Advanced::CutOffMoved(Offset(4)));
    assert_eq!(ledger.checkpoint(P).await.unwrap().offset, Offset(6));
    assert_eq!(advance(8, 4).await.unwrap(), Advanced::Done);
    assert_eq!(ledger.checkpoint(P).await.unwrap().offset, Offset(8));
}

pub async fn the_size_follows_the_votes(ledger: Store) {
    let before = ledger.size().await.unwrap();
    ledger.insert((0..2_000).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let size = ledger.size().await.unwrap() - before;
    assert!((100_000..10_000_000).contains(&size), "{size} bytes for 2 000 votes");
    raise_cut_off(&ledger, 0, 2_000).await;
    purge(&ledger).await;
    let remaining = ledger.size().await.unwrap().saturating_sub(before);
    assert!(remaining < size / 2, "{remaining} of {size} bytes remain after all votes have expired");
}
