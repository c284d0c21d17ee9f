//! What counting and the audit need of a vote book.

use std::sync::Arc;

use super::{key, logged, vote_id};
use crate::{Advanced, Book, Checkpoint, Counts, LoggedVote, Offset, Partition, Place, Repeat, Summary};

/// Tries every promise against the book that `$open` opens.
#[macro_export]
macro_rules! book_conformance {
    ($open:path) => {
        $crate::book_conformance!($open:
            a_new_ballot_is_stored_at_its_place
            a_known_ballot_keeps_its_place
            every_known_ballot_of_a_batch_is_named
            the_checkpoint_rises_and_never_falls
            a_checkpoint_over_a_hole_is_refused
            a_checkpoint_remembers_its_last_vote
            a_rewound_checkpoint_forgets_its_last_vote
            a_range_is_half_open_and_in_order
            a_repeat_is_noted_once
            a_summary_replaces_that_of_its_cut_off_only
            forgetting_leaves_what_a_later_repeat_needs
            a_checkpoint_over_another_cut_off_is_refused
            votes_take_room
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (book, _kept) = $open().await;
            $crate::conformance::book::$promise(book).await;
        }
    )*};
}

type Store = Arc<dyn Book>;

const P: Partition = Partition(4);

fn votes(places: &[(u64, u64)]) -> Arc<[LoggedVote]> {
    places.iter().map(|(n, offset)| logged(*n, P, *offset)).collect()
}

fn at(offset: u64) -> Option<Place> {
    Some(Place { partition: P, offset: Offset(offset) })
}

pub async fn a_new_ballot_is_stored_at_its_place(book: Store) {
    let stored = votes(&[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
    assert_eq!(book.insert(Arc::clone(&stored)).await.unwrap(), Vec::<usize>::new());
    assert_eq!(book.locate(vec![key(1), key(9), key(0)]).await.unwrap(), vec![at(1), None, at(0)]);
    assert_eq!(book.range(P, Offset(0), Offset(6), 10).await.unwrap(), stored.to_vec());
}

pub async fn a_known_ballot_keeps_its_place(book: Store) {
    book.insert(votes(&[(0, 5)])).await.unwrap();
    assert_eq!(book.insert(votes(&[(0, 9)])).await.unwrap(), vec![0]);
    assert_eq!(book.locate(vec![key(0)]).await.unwrap(), vec![at(5)]);
    assert_eq!(book.range(P, Offset(0), Offset(100), 10).await.unwrap(), votes(&[(0, 5)]).to_vec());
}

pub async fn every_known_ballot_of_a_batch_is_named(book: Store) {
    let batch = votes(&[(0, 0), (1, 1), (2, 2), (3, 3)]);
    book.insert(votes(&[(1, 1), (3, 3)])).await.unwrap();
    let mut known = book.insert(Arc::clone(&batch)).await.unwrap();
    known.sort_unstable();
    assert_eq!(known, vec![1, 3]);
    let mut known = book.insert(batch).await.unwrap();
    known.sort_unstable();
    assert_eq!(known, vec![0, 1, 2, 3]);
}

pub async fn the_checkpoint_rises_and_never_falls(book: Store) {
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint::default());
    let raise = |from: u64, to: u64| {
        book.advance(P, Offset(from), Checkpoint { offset: Offset(to), last: None, cut_off: Offset(0) })
    };
    assert_eq!(raise(0, 10).await.unwrap(), Advanced::Done);
    assert_eq!(raise(0, 5).await.unwrap(), Advanced::Done);
    assert_eq!(book.checkpoint(P).await.unwrap().offset, Offset(10));
    assert_eq!(raise(8, 12).await.unwrap(), Advanced::Done);
    assert_eq!(book.checkpoint(P).await.unwrap().offset, Offset(12));
    assert_eq!(book.checkpoint(Partition(5)).await.unwrap(), Checkpoint::default());
}

pub async fn a_checkpoint_over_a_hole_is_refused(book: Store) {
    let raise = |from: u64, to: u64| {
        book.advance(P, Offset(from), Checkpoint { offset: Offset(to), last: None, cut_off: Offset(0) })
    };
    assert_eq!(raise(3, 10).await.unwrap(), Advanced::Hole(Offset(0)));
    raise(0, 4).await.unwrap();
    assert_eq!(raise(5, 10).await.unwrap(), Advanced::Hole(Offset(4)));
    assert_eq!(book.checkpoint(P).await.unwrap().offset, Offset(4));
}

pub async fn a_checkpoint_remembers_its_last_vote(book: Store) {
    let last = Some((Offset(7), vote_id(7)));
    book.advance(P, Offset(0), Checkpoint { offset: Offset(8), last, cut_off: Offset(0) }).await.unwrap();
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(8), last, cut_off: Offset(0) });
    // A batch without votes does not make it forget.
    book.advance(P, Offset(8), Checkpoint { offset: Offset(9), last: None, cut_off: Offset(0) }).await.unwrap();
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(9), last, cut_off: Offset(0) });
}

pub async fn a_rewound_checkpoint_forgets_its_last_vote(book: Store) {
    book.insert(votes(&[(0, 0), (7, 7)])).await.unwrap();
    book.advance(
        P,
        Offset(0),
        Checkpoint { offset: Offset(8), last: Some((Offset(7), vote_id(7))), cut_off: Offset(0) },
    )
    .await
    .unwrap();
    book.rewind(P, Offset(3)).await.unwrap();
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(3), last: None, cut_off: Offset(0) });
    assert_eq!(book.locate(vec![key(0), key(7)]).await.unwrap(), vec![at(0), at(7)]);
    // A partition that was never recorded can be told where to begin.
    book.rewind(Partition(5), Offset(20)).await.unwrap();
    assert_eq!(
        book.checkpoint(Partition(5)).await.unwrap(),
        Checkpoint { offset: Offset(20), last: None, cut_off: Offset(0) }
    );
}

pub async fn a_range_is_half_open_and_in_order(book: Store) {
    book.insert(votes(&[(5, 5), (1, 1), (9, 9), (3, 3)])).await.unwrap();
    book.insert(Arc::from([logged(20, Partition(5), 2)])).await.unwrap();
    let offsets = |votes: Vec<LoggedVote>| votes.iter().map(|logged| logged.place.offset.0).collect::<Vec<_>>();
    assert_eq!(offsets(book.range(P, Offset(1), Offset(9), 10).await.unwrap()), vec![1, 3, 5]);
    assert_eq!(offsets(book.range(P, Offset(0), Offset(10), 2).await.unwrap()), vec![1, 3]);
    assert_eq!(offsets(book.range(P, Offset(4), Offset(10), usize::MAX).await.unwrap()), vec![5, 9]);
}

fn repeat(offset: u64, of: u64) -> Repeat {
    Repeat { place: Place { partition: P, offset: Offset(offset) }, of: Offset(of) }
}

/// The summary of these votes.
fn summary(cut_off: u64, votes: &[LoggedVote]) -> Summary {
    let mut counts = Counts::of(votes);
    counts.keep_permanent();
    Summary { cut_off: Offset(cut_off), counts }
}

pub async fn a_repeat_is_noted_once(book: Store) {
    book.note_repeats(vec![repeat(7, 2), repeat(3, 1)]).await.unwrap();
    book.note_repeats(vec![repeat(9, 2), repeat(7, 2)]).await.unwrap();
    assert_eq!(book.repeats(P, Offset(3), Offset(9)).await.unwrap(), vec![repeat(3, 1), repeat(7, 2)]);
    assert_eq!(book.repeats(P, Offset(8), Offset(u64::MAX)).await.unwrap(), vec![repeat(9, 2)]);
    assert_eq!(book.repeats(Partition(5), Offset(0), Offset(9)).await.unwrap(), vec![]);
}

pub async fn a_summary_replaces_that_of_its_cut_off_only(book: Store) {
    assert_eq!(book.summary(P).await.unwrap(), Summary::default());
    let mut votes = votes(&[(0, 0), (1, 1), (2, 2), (3, 3), (8, 4)]).to_vec();
    "a.b $c \"d\" \u{1F3B8}".clone_into(&mut votes[1].vote.name);
    votes[2].vote.contest = "final".parse().unwrap();
    let first = summary(3, &votes[..3]);
    assert!(book.summarise(P, Offset(0), first.clone()).await.unwrap());
    assert_eq!(book.summary(P).await.unwrap(), first);
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint { cut_off: Offset(3), ..Checkpoint::default() });
    // Whoever thinks that nothing has expired yet is too late.
    assert!(!book.summarise(P, Offset(0), summary(5, &votes)).await.unwrap());
    assert_eq!(book.summary(P).await.unwrap(), first);
    let second = summary(5, &votes);
    assert!(book.summarise(P, Offset(3), second.clone()).await.unwrap());
    assert_eq!(book.summary(P).await.unwrap(), second);
    assert_eq!(book.summary(Partition(5)).await.unwrap(), Summary::default());
    // It stays where a checkpoint moves.
    book.advance(P, Offset(0), Checkpoint { offset: Offset(5), last: None, cut_off: Offset(5) }).await.unwrap();
    book.rewind(P, Offset(2)).await.unwrap();
    assert_eq!(book.checkpoint(P).await.unwrap(), Checkpoint { offset: Offset(2), last: None, cut_off: Offset(5) });
    assert_eq!(book.summary(P).await.unwrap(), second);
}

pub async fn forgetting_leaves_what_a_later_repeat_needs(book: Store) {
    let stored = votes(&[(0, 0), (1, 1), (2, 2), (3, 6), (4, 7)]);
    book.insert(Arc::clone(&stored)).await.unwrap();
    book.insert(Arc::from([logged(20, Partition(5), 0)])).await.unwrap();
    book.note_repeats(vec![repeat(3, 0), repeat(4, 1), repeat(8, 1), repeat(9, 6)]).await.unwrap();
    assert_eq!(book.forget(P).await.unwrap(), 0, "nothing has expired");
    assert!(book.summarise(P, Offset(0), summary(5, &stored[..3])).await.unwrap());
    assert_eq!(book.forget(P).await.unwrap(), 2);
    // Vote 1 is repeated at 8.
    assert_eq!(book.locate((0..5).map(key).collect()).await.unwrap(), vec![None, at(1), None, at(6), at(7)]);
    assert_eq!(book.range(P, Offset(5), Offset(9), 9).await.unwrap(), stored[3..].to_vec());
    assert_eq!(book.repeats(P, Offset(0), Offset(99)).await.unwrap(), vec![repeat(8, 1), repeat(9, 6)]);
    assert_eq!(book.locate(vec![key(20)]).await.unwrap()[0].unwrap().partition, Partition(5));
    assert!(book.summarise(P, Offset(5), summary(9, &stored)).await.unwrap());
    book.forget(P).await.unwrap();
    assert_eq!(book.locate((0..5).map(key).collect()).await.unwrap(), vec![None, None, None, at(6), None]);
    assert_eq!(book.forget(P).await.unwrap(), 0);
}

pub async fn a_checkpoint_over_another_cut_off_is_refused(book: Store) {
    let raise = |to: u64, cut_off: u64| {
        let checkpoint = Checkpoint { offset: Offset(to), last: None, cut_off: Offset(cut_off) };
        book.advance(P, Offset(0), checkpoint)
    };
    assert_eq!(raise(6, 0).await.unwrap(), Advanced::Done);
    assert!(book.summarise(P, Offset(0), summary(4, &[])).await.unwrap());
    assert_eq!(raise(8, 0).await.unwrap(), Advanced::Expired(Offset(4)));
    // Also where B is there already: what was found since is as uncertain.
    assert_eq!(raise(6, 0).await.unwrap(), Advanced::Expired(Offset(4)));
    assert_eq!(book.checkpoint(P).await.unwrap().offset, Offset(6));
    assert_eq!(raise(8, 4).await.unwrap(), Advanced::Done);
    assert_eq!(book.checkpoint(P).await.unwrap().offset, Offset(8));
}

pub async fn votes_take_room(book: Store) {
    let before = book.size().await.unwrap();
    book.insert((0..2_000).map(|n| logged(n, P, n)).collect()).await.unwrap();
    let room = book.size().await.unwrap() - before;
    assert!((100_000..10_000_000).contains(&room), "{room} bytes for 2 000 votes");
    assert!(book.summarise(P, Offset(0), summary(2_000, &[])).await.unwrap());
    book.forget(P).await.unwrap();
    let left = book.size().await.unwrap().saturating_sub(before);
    assert!(left < room / 2, "{left} bytes of {room} are left when all votes have expired");
}
