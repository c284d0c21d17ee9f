//! This suite tests counting with a ledger and tallies while consumers crash, restart and compete.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{NOON, batch, logged, vote_id};
use crate::{
    Bounds, Checkpoint, ClearCondition, ContestId, Counted, Counter, Counts, Cursor, CutOff, Expiry, LOG_TIME_ERROR,
    LogState, LoggedVote, Offset, Partition, PartitionHalt, StorePositions, Tallies, TalliesPosition, UnixMillis,
    WholeLedger,
};

/// Tests every promise with the stores that `$open` opens.
#[macro_export]
macro_rules! counting_conformance {
    ($open:path) => {
        $crate::counting_conformance!($open:
            votes_are_counted
            a_duplicate_in_the_same_batch_does_not_count
            a_duplicate_in_a_later_batch_does_not_count
            a_crash_after_the_insert_loses_and_doubles_no_vote
            a_crash_after_the_checkpoint_loses_and_doubles_no_vote
            a_replayed_batch_changes_nothing
            a_zombie_changes_nothing
            cleared_tallies_are_rebuilt_from_the_ledger
            a_restored_ledger_is_replayed_without_changing_the_tallies
            a_rewound_ledger_is_replayed_without_changing_the_tallies
            a_log_that_lost_uncounted_votes_halts_the_partition
            a_log_that_is_too_short_halts_the_partition
            another_log_halts_the_partition
            tallies_of_another_log_halt_the_partition
            the_last_vote_of_the_tallies_is_on_the_log
            another_consumer_that_counts_does_not_halt_a_reconciling_one
            expired_votes_still_count
            tallies_rolled_back_below_the_cut_off_are_rebuilt
            a_recorded_duplicate_of_an_expired_vote_does_not_count
            a_batch_is_counted_again_if_votes_expired_meanwhile
            votes_expire_by_time
            a_duplicate_of_a_deleted_vote_counts_once
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (ledger, tallies, _guard) = $open().await;
            $crate::conformance::counting::$promise(ledger, tallies).await;
        }
    )*};
}

type TheLedger = Arc<dyn WholeLedger>;
type TheTallies = Arc<dyn Tallies>;

/// The partition of all tests.
const P: Partition = Partition(1);

/// Returns the state of a log that has the offsets `[start, end)`, and these votes at these offsets.
fn log(start: u64, end: u64, votes: &[(u64, u64)]) -> LogState {
    let votes = votes.iter().map(|&(offset, n)| (Offset(offset), vote_id(n))).collect();
    LogState { bounds: Bounds { start: Offset(start), end: Offset(end) }, votes }
}

async fn reconcile(counter: &Counter, end: u64) -> Cursor {
    reconcile_partition(counter, P, end).await
}

/// Reconciles with a log that has the offsets `[0, end)` and the last votes of both stores.
async fn reconcile_partition(counter: &Counter, partition: Partition, end: u64) -> Cursor {
    let before = counter.positions(partition).await.unwrap();
    let votes: BTreeMap<_, _> = before.checkpoint.last.into_iter().chain(before.tallies.last).collect();
    let log = LogState { votes, ..log(0, end, &[]) };
    counter.reconcile(partition, before, log).await.unwrap().unwrap()
}

/// Returns a cursor with cut-off 0.
fn cursor_at(recorded: u64, tallied: u64) -> Cursor {
    Cursor { recorded: Offset(recorded), tallied: Offset(tallied), cut_off: Offset(0) }
}

/// Reconciles with a log with which the partition must halt. Returns the reason for the halt.
async fn halt(counter: &Counter, log: LogState) -> PartitionHalt {
    let before = counter.positions(P).await.unwrap();
    counter.reconcile(P, before, log).await.unwrap().unwrap_err()
}

/// Counts the votes as a batch at the cursor, and advances the cursor. Returns how many of the votes count, and how
/// many are duplicates.
async fn count(counter: &Counter, cursor: &mut Cursor, votes: &[u64]) -> (u64, u64) {
    match counter.count(*cursor, batch(P, cursor.recorded.0, votes)).await.unwrap() {
        Counted::Done { cursor: counted, votes, duplicates } => {
            *cursor = counted;
            (votes.count(), duplicates)
        }
        Counted::PositionsChanged => panic!("no store has moved"),
    }
}

async fn total(tallies: &TheTallies) -> u64 {
    tallies.tally(&ContestId::default(), 100).await.unwrap().total
}

fn votes_from(from: u64, votes: &[u64]) -> Arc<[LoggedVote]> {
    (from..).zip(votes).map(|(offset, n)| logged(*n, P, offset)).collect()
}

pub async fn votes_are_counted(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut cursor, &[0, 1, 2]).await, (3, 0));
    assert_eq!(count(&counter, &mut cursor, &[3, 4]).await, (2, 0));
    assert_eq!(cursor, cursor_at(5, 5));
    assert_eq!(total(&tallies).await, 5);
}

pub async fn a_duplicate_in_the_same_batch_does_not_count(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger.clone(), Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut cursor, &[7, 8, 7, 7]).await, (2, 2));
    assert_eq!(total(&tallies).await, 2);
    let recorded = ledger.range(P, Offset(0), Offset(4), 10).await.unwrap();
    assert_eq!(recorded.iter().map(|logged| logged.position.offset.0).collect::<Vec<_>>(), vec![0, 1]);
}

pub async fn a_duplicate_in_a_later_batch_does_not_count(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2]).await;
    assert_eq!(count(&counter, &mut cursor, &[1, 3, 1]).await, (1, 2));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn a_crash_after_the_insert_loses_and_doubles_no_vote(ledger: TheLedger, tallies: TheTallies) {
    // A consumer crashed after step 3. Its votes are in the ledger already, and must not be treated as duplicates.
    ledger.insert(votes_from(0, &[0, 1, 2])).await.unwrap();
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor.recorded, Offset(0));
    assert_eq!(count(&counter, &mut cursor, &[0, 1, 2, 0]).await, (3, 1));
    assert_eq!(total(&tallies).await, 3);
}

pub async fn a_crash_after_the_checkpoint_loses_and_doubles_no_vote(ledger: TheLedger, tallies: TheTallies) {
    ledger.insert(votes_from(0, &[0, 1, 2])).await.unwrap();
    let checkpoint = Checkpoint { offset: Offset(3), last: Some((Offset(2), vote_id(2))), cut_off: Offset(0) };
    ledger.advance_checkpoint(P, Offset(0), checkpoint).await.unwrap();
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor, cursor_at(3, 3));
    assert_eq!(total(&tallies).await, 3);
    assert_eq!(count(&counter, &mut cursor, &[3]).await, (1, 0));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn a_replayed_batch_changes_nothing(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let start = reconcile(&counter, 100).await;
    count(&counter, &mut start.clone(), &[0, 1, 2]).await;
    let before = tallies.snapshot().await.unwrap();
    assert_eq!(counter.count(start, batch(P, 0, &[0, 1, 2])).await.unwrap(), Counted::PositionsChanged);
    assert_eq!(tallies.snapshot().await.unwrap(), before);
}

pub async fn a_zombie_changes_nothing(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger.clone(), Arc::clone(&tallies));
    let mut zombie = reconcile(&counter, 100).await;
    count(&counter, &mut zombie, &[0, 1]).await;
    // While the zombie is paused, another consumer continues with batches of other sizes.
    let mut other = reconcile(&counter, 100).await;
    count(&counter, &mut other, &[2]).await;
    count(&counter, &mut other, &[3, 2, 4, 5]).await;
    let before = tallies.snapshot().await.unwrap();
    let outcome = counter.count(zombie, batch(P, zombie.recorded.0, &[2, 3, 2])).await.unwrap();
    assert_eq!(outcome, Counted::PositionsChanged);
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    assert_eq!(ledger.checkpoint(P).await.unwrap().offset, Offset(7));
    assert_eq!(ledger.range(P, Offset(0), Offset(100), 100).await.unwrap().len(), 6);
}

pub async fn cleared_tallies_are_rebuilt_from_the_ledger(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2, 1]).await;
    let before = tallies.snapshot().await.unwrap();
    tallies.clear(ClearCondition::Always).await.unwrap();
    assert_eq!(counter.count(cursor, batch(P, cursor.recorded.0, &[3, 0])).await.unwrap(), Counted::PositionsChanged);
    assert_eq!(total(&tallies).await, 0);
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor, cursor_at(6, 6));
    assert_eq!(total(&tallies).await, 4);
    assert_eq!(count(&counter, &mut cursor, &[4]).await, (1, 0));
    // Each band has at least the votes that it had before the tallies were cleared.
    let after = tallies.snapshot().await.unwrap();
    let (before, after) = (&before.contests[&ContestId::default()], &after.contests[&ContestId::default()]);
    assert_eq!(after.total(), 5);
    assert!(before.bands.iter().all(|(band, votes)| after.bands[band] >= *votes));
}

pub async fn a_restored_ledger_is_replayed_without_changing_the_tallies(ledger: TheLedger, tallies: TheTallies) {
    // The ledger was restored from a backup: the tallies are at 3, the ledger is empty.
    let all = votes_from(0, &[0, 1, 2]);
    tallies.add(P, Offset(0), Offset(3).into(), Counts::of(all.iter())).await.unwrap();
    let counter = Counter::new(ledger.clone(), Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor, cursor_at(0, 3));
    assert_eq!(count(&counter, &mut cursor, &[0, 1]).await, (2, 0));
    assert_eq!(total(&tallies).await, 3);
    // The first vote of this batch is in the tallies already; the others are new to both stores.
    assert_eq!(count(&counter, &mut cursor, &[2, 3, 4]).await, (3, 0));
    assert_eq!(total(&tallies).await, 5);
    assert_eq!(ledger.range(P, Offset(0), Offset(100), 100).await.unwrap().len(), 5);
}

pub async fn a_rewound_ledger_is_replayed_without_changing_the_tallies(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger.clone(), Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2, 1]).await;
    let (before, recorded) =
        (tallies.snapshot().await.unwrap(), ledger.range(P, Offset(0), Offset(100), 100).await.unwrap());
    ledger.rewind(P, Offset(0)).await.unwrap();
    assert_eq!(ledger.checkpoint(P).await.unwrap(), Checkpoint::default());
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor, cursor_at(0, 4));
    // The batches differ from the first batches. Even so, the ledger has each vote at its own position.
    assert_eq!(count(&counter, &mut cursor, &[0]).await, (1, 0));
    assert_eq!(count(&counter, &mut cursor, &[1, 2, 1]).await, (2, 1));
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    assert_eq!(ledger.range(P, Offset(0), Offset(100), 100).await.unwrap(), recorded);
    assert_eq!(count(&counter, &mut cursor, &[3]).await, (1, 0));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn a_log_that_lost_uncounted_votes_halts_the_partition(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, tallies);
    let halt = halt(&counter, log(5, 9, &[])).await;
    assert_eq!(halt, PartitionHalt::Lost { partition: P, recorded: Offset(0), start: Offset(5) });
}

pub async fn a_log_that_is_too_short_halts_the_partition(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, tallies);
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2]).await;
    let halt = halt(&counter, log(0, 2, &[])).await;
    assert_eq!(halt, PartitionHalt::BeyondEnd { partition: P, store: "ledger", position: Offset(3), end: Offset(2) });
}

pub async fn another_log_halts_the_partition(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, Arc::clone(&tallies));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2]).await;
    let expected = PartitionHalt::OtherLog { partition: P, store: "ledger", offset: Offset(2), expected: vote_id(2) };
    for votes in [&[(2, 40)][..], &[]] {
        assert_eq!(halt(&counter, log(0, 50, votes)).await, expected);
    }
    assert_eq!(total(&tallies).await, 3);
    // The log no longer has the last vote.
    let before = counter.positions(P).await.unwrap();
    counter.reconcile(P, before, log(3, 50, &[])).await.unwrap().unwrap();
}

pub async fn tallies_of_another_log_halt_the_partition(ledger: TheLedger, tallies: TheTallies) {
    // Another system counts its log into the same tallies: votes 20 to 24.
    let last = Some((Offset(4), vote_id(24)));
    let others = Counts::of(votes_from(0, &[20, 21, 22, 23, 24]).iter());
    tallies.add(P, Offset(0), TalliesPosition { offset: Offset(5), last }, others).await.unwrap();
    let counter = Counter::new(ledger.clone(), Arc::clone(&tallies));
    let expected = PartitionHalt::OtherLog { partition: P, store: "tallies", offset: Offset(4), expected: vote_id(24) };
    let problem = expected.to_string();
    assert!(problem.contains("in the tallies") && problem.contains("another system"), "{problem}");
    for (end, votes) in [(5, &[(4, 4)][..]), (50, &[(4, 4)]), (50, &[])] {
        assert_eq!(halt(&counter, log(0, end, votes)).await, expected);
    }
    assert!(matches!(halt(&counter, log(0, 4, &[])).await, PartitionHalt::BeyondEnd { store: "tallies", .. }));
    // The other system is still right, and continues.
    assert_eq!(total(&tallies).await, 5);
    let own = Counter::new(ledger, Arc::clone(&tallies));
    let before = own.positions(P).await.unwrap();
    let bounds = Bounds { start: Offset(0), end: Offset(50) };
    assert_eq!(before.offsets_to_verify(bounds).into_iter().collect::<Vec<_>>(), vec![Offset(4)]);
    assert_eq!(own.reconcile(P, before, log(0, 50, &[(4, 24)])).await.unwrap().unwrap(), cursor_at(0, 5));
}

pub async fn the_last_vote_of_the_tallies_is_on_the_log(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 100).await;
    let last = |n: u64| Some((Offset(n), vote_id(n)));
    let is_at = async |offset: u64, last| {
        assert_eq!(tallies.position(P).await.unwrap(), TalliesPosition { offset: Offset(offset), last });
    };
    count(&counter, &mut cursor, &[0, 1, 2]).await;
    is_at(3, last(2)).await;
    // A batch without votes keeps the last vote. A duplicate is a vote of the log, too.
    count(&counter, &mut cursor, &[]).await;
    is_at(3, last(2)).await;
    count(&counter, &mut cursor, &[3, 0]).await;
    is_at(5, Some((Offset(4), vote_id(0)))).await;
    // Both stores have the same last vote, so the log is read once.
    let bounds = Bounds { start: Offset(0), end: Offset(100) };
    let StorePositions { checkpoint, tallies: position } = counter.positions(P).await.unwrap();
    assert_eq!(checkpoint.last, position.last);
    assert_eq!(counter.positions(P).await.unwrap().offsets_to_verify(bounds).len(), 1);
    // Votes that are counted from the ledger have the last vote of the ledger.
    tallies.clear(ClearCondition::Always).await.unwrap();
    reconcile(&counter, 100).await;
    is_at(5, last(3)).await;
    let read = counter.positions(P).await.unwrap().offsets_to_verify(bounds);
    assert_eq!(read.into_iter().collect::<Vec<_>>(), vec![Offset(3), Offset(4)]);
    // A summary has no ids, so there is no last vote until the next vote.
    expire(&expiry, &mut cursor, CutOff::At(Offset(5))).await;
    tallies.clear(ClearCondition::Always).await.unwrap();
    let mut cursor = reconcile(&counter, 100).await;
    is_at(5, None).await;
    count(&counter, &mut cursor, &[5]).await;
    is_at(6, last(5)).await;
}

pub async fn another_consumer_that_counts_does_not_halt_a_reconciling_one(ledger: TheLedger, tallies: TheTallies) {
    let counter = Counter::new(ledger, tallies.clone());
    let mut cursor = reconcile(&counter, 3).await;
    count(&counter, &mut cursor, &[0, 1, 2]).await;
    // A consumer reads the positions, then the state of the log. Before this consumer continues, the log grows, another
    // consumer counts, and counted records are deleted from the log.
    let before = counter.positions(P).await.unwrap();
    let state = log(0, 3, &[(2, 2)]);
    count(&counter, &mut cursor, &[3, 4]).await;
    assert_eq!(counter.reconcile(P, before, state).await.unwrap().unwrap(), cursor);
    let trimmed = log(4, 5, &[]);
    assert_eq!(counter.reconcile(P, before, trimmed).await.unwrap().unwrap(), cursor);
    assert_eq!(total(&tallies).await, 5);
}

/// Returns the time of the log when the suite expires votes.
fn log_time() -> UnixMillis {
    NOON.after(Duration::from_mins(10))
}

/// Expires votes in steps, and advances the cursor. Returns how many votes expired.
async fn expire(expiry: &Expiry, cursor: &mut Cursor, until: CutOff) -> u64 {
    let (mut votes, mut purged_to) = (0, Offset(0));
    loop {
        let step = expiry.step(P, *cursor, Some(until), log_time(), purged_to, 2_000).await.unwrap();
        let step = step.expect("no store has moved");
        assert!(step.votes <= 2_000, "a step is bounded");
        *cursor = step.cursor;
        votes += step.votes;
        purged_to = step.purged_to;
        if step.is_done {
            return votes;
        }
    }
}

/// Returns the counts without the windows that expire.
async fn permanent_counts(tallies: &TheTallies) -> Counts {
    let mut counts = Counts { contests: tallies.snapshot().await.unwrap().contests };
    counts.drop_expiring_windows();
    counts
}

pub async fn expired_votes_still_count(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2, 3, 4, 5]).await;
    assert_eq!(expire(&expiry, &mut cursor, CutOff::At(Offset(2))).await, 2);
    assert_eq!(expire(&expiry, &mut cursor, CutOff::At(Offset(4))).await, 2);
    assert_eq!(expire(&expiry, &mut cursor, CutOff::At(Offset(3))).await, 0);
    assert_eq!(cursor.cut_off, Offset(4));
    assert_eq!(ledger.range(P, Offset(0), Offset(100), 100).await.unwrap(), votes_from(4, &[4, 5]).to_vec());
    assert_eq!(count(&counter, &mut cursor, &[6]).await, (1, 0));
    let before = permanent_counts(&tallies).await;
    tallies.clear(ClearCondition::Always).await.unwrap();
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(permanent_counts(&tallies).await, before);
    // Votes that are not counted yet do not expire.
    assert_eq!(expire(&expiry, &mut cursor, CutOff::At(Offset(99))).await, 3);
    assert_eq!(cursor.cut_off, Offset(7));
    tallies.clear(ClearCondition::Always).await.unwrap();
    reconcile(&counter, 100).await;
    assert_eq!(permanent_counts(&tallies).await, before);
}

pub async fn tallies_rolled_back_below_the_cut_off_are_rebuilt(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1, 2, 3, 4]).await;
    let before = permanent_counts(&tallies).await;
    expire(&expiry, &mut cursor, CutOff::At(Offset(4))).await;
    // The tallies are rolled back to offset 2. They have two of the four votes below the cut-off.
    tallies.clear(ClearCondition::Always).await.unwrap();
    tallies.add(P, Offset(0), Offset(2).into(), Counts::of(votes_from(0, &[0, 1]).iter())).await.unwrap();
    let cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor, Cursor { cut_off: Offset(4), ..cursor_at(5, 5) });
    assert_eq!(permanent_counts(&tallies).await, before);
}

pub async fn a_recorded_duplicate_of_an_expired_vote_does_not_count(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut cursor, &[0, 1, 2]).await, (3, 0));
    assert_eq!(count(&counter, &mut cursor, &[3, 0, 3]).await, (1, 2));
    expire(&expiry, &mut cursor, CutOff::At(Offset(4))).await;
    // A zombie counts the batch that it read before the votes expired.
    let outcome = counter.count(cursor_at(3, 3), batch(P, 3, &[3, 0, 3])).await.unwrap();
    assert_eq!(outcome, Counted::PositionsChanged);
    assert_eq!(ledger.range(P, Offset(4), Offset(100), 100).await.unwrap(), vec![]);
    tallies.clear(ClearCondition::Always).await.unwrap();
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(total(&tallies).await, 4);
    // While a duplicate of an expired vote is recorded, another duplicate of the vote does not count. Without a
    // recorded duplicate, it counts.
    assert_eq!(count(&counter, &mut cursor, &[0]).await, (0, 1));
    expire(&expiry, &mut cursor, CutOff::At(Offset(7))).await;
    assert_eq!(count(&counter, &mut cursor, &[1]).await, (1, 0));
}

pub async fn a_batch_is_counted_again_if_votes_expired_meanwhile(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1]).await;
    let slow = cursor;
    expire(&expiry, &mut cursor, CutOff::At(Offset(2))).await;
    assert_eq!(counter.count(slow, batch(P, 2, &[2, 3])).await.unwrap(), Counted::PositionsChanged);
    let until = Some(CutOff::At(Offset(2)));
    assert_eq!(expiry.step(P, slow, until, log_time(), Offset(0), 2_000).await.unwrap(), None);
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(cursor, Cursor { cut_off: Offset(2), ..cursor_at(2, 2) });
    assert_eq!(count(&counter, &mut cursor, &[2, 3]).await, (2, 0));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn votes_expire_by_time(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 5_000).await;
    let votes: Vec<u64> = (0..2_500).collect();
    count(&counter, &mut cursor, &votes).await;
    let time = |n: u64| logged(n, P, n).vote.accepted_at;
    assert_eq!(expire(&expiry, &mut cursor, CutOff::Time(time(2_100))).await, 2_100);
    assert_eq!(cursor.cut_off, Offset(2_100));
    let youngest = async || ledger.summary(P).await.unwrap().youngest_expired;
    assert_eq!(youngest().await, Some(log_time().before(LOG_TIME_ERROR).since(time(2_099))));
    assert_eq!(expire(&expiry, &mut cursor, CutOff::Time(time(2_000))).await, 0);
    assert_eq!(expire(&expiry, &mut cursor, CutOff::Time(time(9_999))).await, 400);
    assert_eq!(cursor.cut_off, Offset(2_500));
    assert_eq!(youngest().await, Some(log_time().before(LOG_TIME_ERROR).since(time(2_499))));
    assert_eq!(total(&tallies).await, 2_500);
}

pub async fn a_duplicate_of_a_deleted_vote_counts_once(ledger: TheLedger, tallies: TheTallies) {
    let (counter, expiry) =
        (Counter::new(ledger.clone(), tallies.clone()), Expiry::new(ledger.clone(), tallies.clone()));
    let mut cursor = reconcile(&counter, 100).await;
    count(&counter, &mut cursor, &[0, 1]).await;
    expire(&expiry, &mut cursor, CutOff::At(Offset(2))).await;
    // The duplicate follows after its original was deleted, so it counts. It counts once, also if the batch is counted again.
    assert_eq!(count(&counter, &mut cursor, &[0]).await, (1, 0));
    assert_eq!(count(&counter, &mut cursor, &[0]).await, (0, 1));
    ledger.rewind(P, Offset(2)).await.unwrap();
    let mut cursor = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut cursor, &[0, 0]).await, (1, 1));
    assert_eq!(total(&tallies).await, 3);
}
