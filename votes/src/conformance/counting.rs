//! What the counter makes of a book and tallies when consumers die, come back and race.

use std::sync::Arc;

use super::{batch, logged, vote_id};
use crate::{
    Book, Bounds, Checkpoint, ContestId, Counted, Counter, Counts, CutOff, LogFacts, LoggedVote, Offset, Partition,
    Progress, Stop, Tallies, VoteId,
};

/// Tries every promise against the stores that `$open` opens.
#[macro_export]
macro_rules! counting_conformance {
    ($open:path) => {
        $crate::counting_conformance!($open:
            votes_are_counted
            a_repeat_in_one_batch_counts_once
            a_repeat_in_a_later_batch_counts_once
            a_crash_after_inserting_counts_once
            a_crash_after_the_checkpoint_counts_once
            a_replayed_batch_changes_nothing
            a_zombie_changes_nothing
            cleared_tallies_come_back_from_the_book
            a_checkpoint_that_fell_back_is_replayed_into_the_book_only
            a_rewound_book_is_replayed_into_the_book_only
            a_log_that_lost_uncounted_votes_stops_the_partition
            a_log_that_is_too_short_stops_the_partition
            another_log_stops_the_partition
            counting_elsewhere_stops_nobody_who_reconciles
            expired_votes_still_count
            tallies_from_before_the_cut_off_are_counted_again
            a_repeat_of_an_expired_vote_is_one_while_it_is_noted
            what_expired_meanwhile_is_looked_up_again
            votes_expire_by_time
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (book, tallies, _kept) = $open().await;
            $crate::conformance::counting::$promise(book, tallies).await;
        }
    )*};
}

type TheBook = Arc<dyn Book>;
type TheTallies = Arc<dyn Tallies>;

const P: Partition = Partition(1);

/// A log that has `[start, end)`, whose last counted vote is `last`.
fn log(start: u64, end: u64, last: Option<VoteId>) -> LogFacts {
    LogFacts { bounds: Bounds { start: Offset(start), end: Offset(end) }, last }
}

async fn reconcile(counter: &Counter, end: u64) -> Progress {
    let before = counter.positions(P).await.unwrap();
    let last = before.booked.last.map(|(_, id)| id);
    counter.reconcile(P, before, log(0, end, last)).await.unwrap().unwrap()
}

/// Progress where nothing has expired.
fn at(booked: u64, tallied: u64) -> Progress {
    Progress { booked: Offset(booked), tallied: Offset(tallied), cut_off: Offset(0) }
}

/// Why the partition stops.
async fn stop(counter: &Counter, log: LogFacts) -> Stop {
    let before = counter.positions(P).await.unwrap();
    counter.reconcile(P, before, log).await.unwrap().unwrap_err()
}

/// Counts the votes as a batch at the counter's progress, and returns how many stand and how many repeat.
async fn count(counter: &Counter, progress: &mut Progress, votes: &[u64]) -> (u64, u64) {
    match counter.count(*progress, batch(P, progress.booked.0, votes)).await.unwrap() {
        Counted::Done { progress: counted, votes, duplicates } => {
            *progress = counted;
            (votes.count(), duplicates)
        }
        Counted::Disagreed => panic!("the stores are where they were"),
    }
}

async fn total(tallies: &TheTallies) -> u64 {
    tallies.tally(&ContestId::default(), 100).await.unwrap().total
}

fn parts(from: u64, votes: &[u64]) -> Arc<[LoggedVote]> {
    (from..).zip(votes).map(|(offset, n)| logged(*n, P, offset)).collect()
}

pub async fn votes_are_counted(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut progress, &[0, 1, 2]).await, (3, 0));
    assert_eq!(count(&counter, &mut progress, &[3, 4]).await, (2, 0));
    assert_eq!(progress, at(5, 5));
    assert_eq!(total(&tallies).await, 5);
}

pub async fn a_repeat_in_one_batch_counts_once(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(Arc::clone(&book), Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut progress, &[7, 8, 7, 7]).await, (2, 2));
    assert_eq!(total(&tallies).await, 2);
    let booked = book.range(P, Offset(0), Offset(4), 10).await.unwrap();
    assert_eq!(booked.iter().map(|logged| logged.place.offset.0).collect::<Vec<_>>(), vec![0, 1]);
}

pub async fn a_repeat_in_a_later_batch_counts_once(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2]).await;
    assert_eq!(count(&counter, &mut progress, &[1, 3, 1]).await, (1, 2));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn a_crash_after_inserting_counts_once(book: TheBook, tallies: TheTallies) {
    // A consumer died after step 3: the votes are in the book, and "duplicate" would lose them.
    book.insert(parts(0, &[0, 1, 2])).await.unwrap();
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(progress.booked, Offset(0));
    assert_eq!(count(&counter, &mut progress, &[0, 1, 2, 0]).await, (3, 1));
    assert_eq!(total(&tallies).await, 3);
}

pub async fn a_crash_after_the_checkpoint_counts_once(book: TheBook, tallies: TheTallies) {
    book.insert(parts(0, &[0, 1, 2])).await.unwrap();
    let checkpoint = Checkpoint { offset: Offset(3), last: Some((Offset(2), vote_id(2))), cut_off: Offset(0) };
    book.advance(P, Offset(0), checkpoint).await.unwrap();
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(progress, at(3, 3));
    assert_eq!(total(&tallies).await, 3);
    assert_eq!(count(&counter, &mut progress, &[3]).await, (1, 0));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn a_replayed_batch_changes_nothing(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let start = reconcile(&counter, 100).await;
    count(&counter, &mut start.clone(), &[0, 1, 2]).await;
    let before = tallies.snapshot().await.unwrap();
    assert_eq!(counter.count(start, batch(P, 0, &[0, 1, 2])).await.unwrap(), Counted::Disagreed);
    assert_eq!(tallies.snapshot().await.unwrap(), before);
}

pub async fn a_zombie_changes_nothing(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(Arc::clone(&book), Arc::clone(&tallies));
    let mut zombie = reconcile(&counter, 100).await;
    count(&counter, &mut zombie, &[0, 1]).await;
    // While it sleeps another consumer goes on, with batches of other sizes.
    let mut other = reconcile(&counter, 100).await;
    count(&counter, &mut other, &[2]).await;
    count(&counter, &mut other, &[3, 2, 4, 5]).await;
    let before = tallies.snapshot().await.unwrap();
    let awake = counter.count(zombie, batch(P, zombie.booked.0, &[2, 3, 2])).await.unwrap();
    assert_eq!(awake, Counted::Disagreed);
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    assert_eq!(book.checkpoint(P).await.unwrap().offset, Offset(7));
    assert_eq!(book.range(P, Offset(0), Offset(100), 100).await.unwrap().len(), 6);
}

pub async fn cleared_tallies_come_back_from_the_book(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2, 1]).await;
    let before = tallies.snapshot().await.unwrap();
    tallies.clear().await.unwrap();
    assert_eq!(counter.count(progress, batch(P, progress.booked.0, &[3, 0])).await.unwrap(), Counted::Disagreed);
    assert_eq!(total(&tallies).await, 0);
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(progress, at(6, 6));
    assert_eq!(total(&tallies).await, 4);
    assert_eq!(count(&counter, &mut progress, &[4]).await, (1, 0));
    // What was counted before the clearing is back, band by band.
    let after = tallies.snapshot().await.unwrap();
    let (before, after) = (&before.contests[&ContestId::default()], &after.contests[&ContestId::default()]);
    assert_eq!(after.total(), 5);
    assert!(before.bands.iter().all(|(band, votes)| after.bands[band] >= *votes));
}

pub async fn a_checkpoint_that_fell_back_is_replayed_into_the_book_only(book: TheBook, tallies: TheTallies) {
    // The book was restored from a backup: the tallies are at 3, the book is empty.
    let all = parts(0, &[0, 1, 2]);
    tallies.add(P, Offset(0), Offset(3), Counts::of(all.iter())).await.unwrap();
    let counter = Counter::new(Arc::clone(&book), Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(progress, at(0, 3));
    assert_eq!(count(&counter, &mut progress, &[0, 1]).await, (2, 0));
    assert_eq!(total(&tallies).await, 3);
    // This batch is both: its first vote only in the book, the rest in both.
    assert_eq!(count(&counter, &mut progress, &[2, 3, 4]).await, (3, 0));
    assert_eq!(total(&tallies).await, 5);
    assert_eq!(book.range(P, Offset(0), Offset(100), 100).await.unwrap().len(), 5);
}

pub async fn a_rewound_book_is_replayed_into_the_book_only(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(Arc::clone(&book), Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2, 1]).await;
    let (before, booked) =
        (tallies.snapshot().await.unwrap(), book.range(P, Offset(0), Offset(100), 100).await.unwrap());
    book.rewind(P, Offset(0)).await.unwrap();
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint::default());
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(progress, at(0, 4));
    // In other batches than before: the votes recognise themselves.
    assert_eq!(count(&counter, &mut progress, &[0]).await, (1, 0));
    assert_eq!(count(&counter, &mut progress, &[1, 2, 1]).await, (2, 1));
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    assert_eq!(book.range(P, Offset(0), Offset(100), 100).await.unwrap(), booked);
    assert_eq!(count(&counter, &mut progress, &[3]).await, (1, 0));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn a_log_that_lost_uncounted_votes_stops_the_partition(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, tallies);
    let stop = stop(&counter, log(5, 9, None)).await;
    assert_eq!(stop, Stop::Lost { partition: P, booked: Offset(0), start: Offset(5) });
}

pub async fn a_log_that_is_too_short_stops_the_partition(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, tallies);
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2]).await;
    let stop = stop(&counter, log(0, 2, None)).await;
    assert_eq!(stop, Stop::BeyondEnd { partition: P, store: "book", position: Offset(3), end: Offset(2) });
}

pub async fn another_log_stops_the_partition(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2]).await;
    let stop = stop(&counter, log(0, 50, Some(vote_id(40)))).await;
    assert_eq!(stop, Stop::OtherLog { partition: P, offset: Offset(2), expected: vote_id(2) });
    assert_eq!(total(&tallies).await, 3);
}

pub async fn counting_elsewhere_stops_nobody_who_reconciles(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 3).await;
    count(&counter, &mut progress, &[0, 1, 2]).await;
    // Another consumer asks the stores, then the log. Before it goes on, the log grows, is counted, and forgets what it may.
    let before = counter.positions(P).await.unwrap();
    let facts = log(0, 3, Some(vote_id(2)));
    count(&counter, &mut progress, &[3, 4]).await;
    assert_eq!(counter.reconcile(P, before, facts).await.unwrap().unwrap(), progress);
    let trimmed = log(4, 5, None);
    assert_eq!(counter.reconcile(P, before, trimmed).await.unwrap().unwrap(), progress);
    assert_eq!(total(&tallies).await, 5);
}

async fn expire(counter: &Counter, progress: &mut Progress, until: CutOff) -> u64 {
    let (expired, votes) = counter.expire(P, *progress, until).await.unwrap().expect("the stores are where they were");
    *progress = expired;
    votes
}

/// Everything that does not expire by itself.
async fn permanent(tallies: &TheTallies) -> Counts {
    let mut counts = Counts { contests: tallies.snapshot().await.unwrap().contests };
    counts.keep_permanent();
    counts
}

pub async fn expired_votes_still_count(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(Arc::clone(&book), Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2, 3, 4, 5]).await;
    assert_eq!(expire(&counter, &mut progress, CutOff::At(Offset(2))).await, 2);
    assert_eq!(expire(&counter, &mut progress, CutOff::At(Offset(4))).await, 2);
    assert_eq!(expire(&counter, &mut progress, CutOff::At(Offset(3))).await, 0);
    assert_eq!(progress.cut_off, Offset(4));
    assert_eq!(book.range(P, Offset(0), Offset(100), 100).await.unwrap(), parts(4, &[4, 5]).to_vec());
    assert_eq!(count(&counter, &mut progress, &[6]).await, (1, 0));
    let before = permanent(&tallies).await;
    tallies.clear().await.unwrap();
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(permanent(&tallies).await, before);
    // What is not counted yet does not expire.
    assert_eq!(expire(&counter, &mut progress, CutOff::At(Offset(99))).await, 3);
    assert_eq!(progress.cut_off, Offset(7));
    tallies.clear().await.unwrap();
    reconcile(&counter, 100).await;
    assert_eq!(permanent(&tallies).await, before);
}

pub async fn tallies_from_before_the_cut_off_are_counted_again(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1, 2, 3, 4]).await;
    let before = permanent(&tallies).await;
    expire(&counter, &mut progress, CutOff::At(Offset(4))).await;
    // The tallies are rolled back to where half of what expired since was counted.
    tallies.clear().await.unwrap();
    tallies.add(P, Offset(0), Offset(2), Counts::of(parts(0, &[0, 1]).iter())).await.unwrap();
    let progress = reconcile(&counter, 100).await;
    assert_eq!(progress, Progress { cut_off: Offset(4), ..at(5, 5) });
    assert_eq!(permanent(&tallies).await, before);
}

pub async fn a_repeat_of_an_expired_vote_is_one_while_it_is_noted(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(Arc::clone(&book), Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(count(&counter, &mut progress, &[0, 1, 2]).await, (3, 0));
    assert_eq!(count(&counter, &mut progress, &[3, 0, 3]).await, (1, 2));
    expire(&counter, &mut progress, CutOff::At(Offset(4))).await;
    // A zombie that had read the repeats before wakes now.
    let awake = counter.count(at(3, 3), batch(P, 3, &[3, 0, 3])).await.unwrap();
    assert_eq!(awake, Counted::Disagreed);
    assert_eq!(book.range(P, Offset(4), Offset(100), 100).await.unwrap(), vec![]);
    tallies.clear().await.unwrap();
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(total(&tallies).await, 4);
    // While their repeats are there, they are known; then the horizon is behind them.
    assert_eq!(count(&counter, &mut progress, &[0]).await, (0, 1));
    expire(&counter, &mut progress, CutOff::At(Offset(7))).await;
    assert_eq!(count(&counter, &mut progress, &[1]).await, (1, 0));
}

pub async fn what_expired_meanwhile_is_looked_up_again(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(book, Arc::clone(&tallies));
    let mut progress = reconcile(&counter, 100).await;
    count(&counter, &mut progress, &[0, 1]).await;
    let slow = progress;
    expire(&counter, &mut progress, CutOff::At(Offset(2))).await;
    assert_eq!(counter.count(slow, batch(P, 2, &[2, 3])).await.unwrap(), Counted::Disagreed);
    assert_eq!(counter.expire(P, slow, CutOff::At(Offset(2))).await.unwrap(), None);
    let mut progress = reconcile(&counter, 100).await;
    assert_eq!(progress, Progress { cut_off: Offset(2), ..at(2, 2) });
    assert_eq!(count(&counter, &mut progress, &[2, 3]).await, (2, 0));
    assert_eq!(total(&tallies).await, 4);
}

pub async fn votes_expire_by_time(book: TheBook, tallies: TheTallies) {
    let counter = Counter::new(Arc::clone(&book), tallies);
    let mut progress = reconcile(&counter, 5_000).await;
    let votes: Vec<u64> = (0..2_500).collect();
    count(&counter, &mut progress, &votes).await;
    let at = |n: u64| CutOff::Time(logged(n, P, n).vote.accepted_at);
    assert_eq!(expire(&counter, &mut progress, at(2_100)).await, 2_100);
    assert_eq!(progress.cut_off, Offset(2_100));
    assert_eq!(expire(&counter, &mut progress, at(2_000)).await, 0);
    assert_eq!(expire(&counter, &mut progress, at(9_999)).await, 400);
    assert_eq!(progress.cut_off, Offset(2_500));
}
