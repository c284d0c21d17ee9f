//! What doors, consumers and the audit need of a vote log.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join;

use super::{NOON, give_up, vote};
use crate::{
    Assignment, Bounds, DeadLetter, Offset, Partition, Place, Poison, Receipt, Retention, Vote, VoteFeed, VoteQueue,
};

/// Tries every promise against the log that `$open` opens.
#[macro_export]
macro_rules! log_conformance {
    ($open:path) => {
        $crate::log_conformance!($open:
            a_receipt_names_where_the_vote_is
            a_vote_comes_back_as_it_was_cast
            offsets_rise_without_gaps
            batches_join
            a_feed_reads_again_from_where_it_seeks
            a_reader_that_gave_up_has_read_nothing
            bounds_follow_the_log
            a_waiting_reader_is_woken
            every_partition_is_assigned_once
            a_dead_letter_is_kept_once
            flushing_settles_every_receipt
            what_is_counted_leaves_the_log_when_it_is_old
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (queue, feed, _kept) = $open().await;
            $crate::conformance::log::$promise(queue, feed).await;
        }
    )*};
}

type Queue = Arc<dyn VoteQueue>;
type Feed = Arc<dyn VoteFeed>;

async fn publish(queue: &Queue, vote: Vote) -> Receipt {
    let partition = vote.key.partition(queue.partitions());
    queue.publish(partition, vote).expect("there is room").await.expect("the log confirms")
}

async fn publish_to(queue: &Queue, partition: Partition, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let receipt = queue.publish(partition, vote(n)).expect("there is room").await;
        assert_eq!(receipt.expect("the log confirms").place.partition, partition);
    }
}

pub async fn a_receipt_names_where_the_vote_is(queue: Queue, feed: Feed) {
    for n in 0..30 {
        let cast = vote(n);
        let Receipt { place: Place { partition, offset }, accepted_at } = publish(&queue, cast.clone()).await;
        feed.seek(partition, offset).await.unwrap();
        let batch = feed.next_batch(partition, 1).await.unwrap();
        assert_eq!(batch.records[0].offset, offset);
        assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, cast.vote_id);
        assert_eq!(accepted_at, cast.accepted_at);
    }
}

pub async fn a_vote_comes_back_as_it_was_cast(queue: Queue, feed: Feed) {
    for n in 0..12 {
        let cast = vote(n);
        let place = publish(&queue, cast.clone()).await.place;
        feed.seek(place.partition, place.offset).await.unwrap();
        let record = feed.next_batch(place.partition, 1).await.unwrap().records.remove(0);
        assert_eq!(record.accepted_at, cast.accepted_at);
        assert_eq!(record.vote, Ok(cast));
    }
}

pub async fn offsets_rise_without_gaps(queue: Queue, _: Feed) {
    let mut next: BTreeMap<Partition, u64> = BTreeMap::new();
    for n in 0..60 {
        let place = publish(&queue, vote(n)).await.place;
        let expected = next.entry(place.partition).or_default();
        assert_eq!(place.offset, Offset(*expected));
        *expected += 1;
    }
    assert!(next.len() > 1, "votes spread over partitions");
}

pub async fn batches_join(queue: Queue, feed: Feed) {
    let partition = Partition(3);
    publish_to(&queue, partition, 0..50).await;
    feed.seek(partition, Offset(0)).await.unwrap();
    let (mut at, mut ids) = (Offset(0), Vec::new());
    while at < Offset(50) {
        let batch = feed.next_batch(partition, 7).await.unwrap();
        assert_eq!(batch.from, at);
        assert!(batch.records.len() <= 7);
        ids.extend(batch.records.into_iter().map(|record| record.vote.unwrap().vote_id));
        at = batch.to;
    }
    assert_eq!(ids, (0..50).map(super::vote_id).collect::<Vec<_>>());
}

pub async fn a_feed_reads_again_from_where_it_seeks(queue: Queue, feed: Feed) {
    let partition = Partition(0);
    publish_to(&queue, partition, 0..10).await;
    for start in [0, 4, 9, 2] {
        feed.seek(partition, Offset(start)).await.unwrap();
        let batch = feed.next_batch(partition, 1).await.unwrap();
        assert_eq!((batch.from, batch.to), (Offset(start), Offset(start + 1)));
        assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, super::vote_id(start));
    }
}

pub async fn a_reader_that_gave_up_has_read_nothing(queue: Queue, feed: Feed) {
    let partition = Partition(1);
    publish_to(&queue, partition, 0..5).await;
    feed.seek(partition, Offset(0)).await.unwrap();
    for _ in 0..20 {
        if give_up(feed.next_batch(partition, 5)).is_ready() {
            feed.seek(partition, Offset(0)).await.unwrap();
        }
    }
    assert_eq!(feed.next_batch(partition, 5).await.unwrap().from, Offset(0));
}

pub async fn bounds_follow_the_log(queue: Queue, feed: Feed) {
    let partition = Partition(11);
    let empty = feed.bounds(partition).await.unwrap();
    assert_eq!((empty.start, empty.end), (Offset(0), Offset(0)));
    publish_to(&queue, partition, 0..3).await;
    let bounds = feed.bounds(partition).await.unwrap();
    assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(3)));
}

pub async fn a_waiting_reader_is_woken(queue: Queue, feed: Feed) {
    let partition = Partition(5);
    feed.seek(partition, Offset(0)).await.unwrap();
    let (batch, ()) = join(feed.next_batch(partition, 10), publish_to(&queue, partition, 0..1)).await;
    assert_eq!(batch.unwrap().records.len(), 1);
}

pub async fn every_partition_is_assigned_once(queue: Queue, feed: Feed) {
    let all: Vec<Partition> = (0..queue.partitions()).map(Partition).collect();
    assert_eq!(feed.partitions(), queue.partitions());
    assert_eq!(feed.assignment().await.unwrap(), Assignment::Assigned(all));
    assert!(give_up(feed.assignment()).is_pending());
}

pub async fn a_dead_letter_is_kept_once(_: Queue, feed: Feed) {
    let letter = |offset: u64| DeadLetter {
        place: Place { partition: Partition(2), offset: Offset(offset) },
        accepted_at: NOON,
        poison: Poison { reason: format!("poison {offset}"), key: b"key".to_vec(), value: vec![0, 255] },
    };
    feed.bury(&[letter(4), letter(9)]).await.unwrap();
    feed.bury(&[letter(4)]).await.unwrap();
    let dead = feed.dead(Partition(2), Offset(0), Offset(9)).await.unwrap();
    assert_eq!(dead, vec![letter(4)]);
    assert_eq!(feed.dead(Partition(2), Offset(0), Offset(10)).await.unwrap().len(), 2);
    assert_eq!(feed.dead(Partition(3), Offset(0), Offset(10)).await.unwrap(), vec![]);
}

pub async fn flushing_settles_every_receipt(queue: Queue, _: Feed) {
    let pending: Vec<_> = (0..100).map(|n| queue.publish(Partition(6), vote(n)).unwrap()).collect();
    queue.flush().await;
    for receipt in pending {
        assert!(give_up(receipt).is_ready());
    }
}

pub async fn what_is_counted_leaves_the_log_when_it_is_old(queue: Queue, feed: Feed) {
    let (partition, day) = (Partition(7), Retention::Age(std::time::Duration::from_hours(24)));
    publish_to(&queue, partition, 0..50).await;
    // Votes of the suite are of a noon that is past.
    feed.expire(partition, day, Offset(30)).await.unwrap();
    let bounds = Bounds { start: Offset(30), end: Offset(50) };
    assert_eq!(feed.bounds(partition).await.unwrap(), bounds);
    feed.expire(partition, day, Offset(10)).await.unwrap();
    feed.expire(partition, Retention::Age(std::time::Duration::from_hours(24 * 3_650)), Offset(50)).await.unwrap();
    feed.expire(partition, Retention::Bytes(1_000_000_000), Offset(50)).await.unwrap();
    assert_eq!(feed.bounds(partition).await.unwrap(), bounds);
    feed.seek(partition, Offset(30)).await.unwrap();
    let batch = feed.next_batch(partition, 1).await.unwrap();
    assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, super::vote_id(30));
    // A log whose records have all left goes on where it was.
    feed.expire(partition, day, Offset(50)).await.unwrap();
    assert_eq!(feed.bounds(partition).await.unwrap(), Bounds { start: Offset(50), end: Offset(50) });
    publish_to(&queue, partition, 50..51).await;
    assert_eq!(feed.bounds(partition).await.unwrap(), Bounds { start: Offset(50), end: Offset(51) });
}
