//! This suite tests what producers, consumers and the audit need from a vote log.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join;

use super::{NOON, poll_once, vote};
use crate::{
    Assignment, Bounds, DeadLetter, InvalidRecord, LogPosition, LogReader, LogWriter, Offset, Partition, Receipt,
    Retention, Vote,
};

/// Tests every promise with the log that `$open` opens.
#[macro_export]
macro_rules! log_conformance {
    ($open:path) => {
        $crate::log_conformance!($open:
            a_receipt_has_the_position_of_the_vote
            a_vote_is_read_as_it_was_cast
            offsets_rise_without_gaps
            batches_are_contiguous
            a_reader_reads_from_the_offset_that_it_seeks
            a_cancelled_read_has_read_nothing
            bounds_follow_the_log
            a_waiting_reader_is_woken
            every_partition_is_assigned_once
            a_dead_letter_is_stored_once
            dead_letters_are_read_in_bounded_parts
            a_record_of_any_size_can_be_a_dead_letter
            flushing_completes_every_receipt
            old_counted_votes_expire_from_the_log
            counted_votes_of_all_partitions_expire_by_their_age
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (log_writer, log_reader, _guard) = $open().await;
            $crate::conformance::log::$promise(log_writer, log_reader).await;
        }
    )*};
}

type TheLogWriter = Arc<dyn LogWriter>;
type TheLogReader = Arc<dyn LogReader>;

const DAY: Duration = Duration::from_hours(24);

/// Publishes a vote to the partition of its ballot. Returns the receipt.
async fn publish(log_writer: &TheLogWriter, vote: Vote) -> Receipt {
    let partition = vote.key.partition(log_writer.partitions());
    log_writer.publish(partition, vote).expect("there is room").await.expect("the log confirms")
}

/// Publishes the votes with these numbers to one partition.
async fn publish_to(log_writer: &TheLogWriter, partition: Partition, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let receipt = log_writer.publish(partition, vote(n)).expect("there is room").await;
        assert_eq!(receipt.expect("the log confirms").position.partition, partition);
    }
}

pub async fn a_receipt_has_the_position_of_the_vote(log_writer: TheLogWriter, log_reader: TheLogReader) {
    for n in 0..30 {
        let cast = vote(n);
        let Receipt { position: LogPosition { partition, offset }, accepted_at } =
            publish(&log_writer, cast.clone()).await;
        log_reader.seek(partition, offset).await.unwrap();
        let batch = log_reader.next_batch(partition, 1).await.unwrap();
        assert_eq!(batch.records[0].offset, offset);
        assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, cast.vote_id);
        assert_eq!(accepted_at, cast.accepted_at);
    }
}

pub async fn a_vote_is_read_as_it_was_cast(log_writer: TheLogWriter, log_reader: TheLogReader) {
    for n in 0..12 {
        let cast = vote(n);
        let position = publish(&log_writer, cast.clone()).await.position;
        log_reader.seek(position.partition, position.offset).await.unwrap();
        let record = log_reader.next_batch(position.partition, 1).await.unwrap().records.remove(0);
        assert_eq!(record.accepted_at, cast.accepted_at);
        assert_eq!(record.vote, Ok(cast));
    }
}

pub async fn offsets_rise_without_gaps(log_writer: TheLogWriter, _: TheLogReader) {
    let mut next: BTreeMap<Partition, u64> = BTreeMap::new();
    for n in 0..60 {
        let position = publish(&log_writer, vote(n)).await.position;
        let expected = next.entry(position.partition).or_default();
        assert_eq!(position.offset, Offset(*expected));
        *expected += 1;
    }
    assert!(next.len() > 1, "votes spread over partitions");
}

pub async fn batches_are_contiguous(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let partition = Partition(3);
    publish_to(&log_writer, partition, 0..50).await;
    log_reader.seek(partition, Offset(0)).await.unwrap();
    let (mut at, mut ids) = (Offset(0), Vec::new());
    while at < Offset(50) {
        let batch = log_reader.next_batch(partition, 7).await.unwrap();
        assert_eq!(batch.from, at);
        assert!(batch.records.len() <= 7);
        ids.extend(batch.records.into_iter().map(|record| record.vote.unwrap().vote_id));
        at = batch.to;
    }
    assert_eq!(ids, (0..50).map(super::vote_id).collect::<Vec<_>>());
}

pub async fn a_reader_reads_from_the_offset_that_it_seeks(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let partition = Partition(0);
    publish_to(&log_writer, partition, 0..10).await;
    for start in [0, 4, 9, 2] {
        log_reader.seek(partition, Offset(start)).await.unwrap();
        let batch = log_reader.next_batch(partition, 1).await.unwrap();
        assert_eq!((batch.from, batch.to), (Offset(start), Offset(start + 1)));
        assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, super::vote_id(start));
    }
}

pub async fn a_cancelled_read_has_read_nothing(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let partition = Partition(1);
    publish_to(&log_writer, partition, 0..5).await;
    log_reader.seek(partition, Offset(0)).await.unwrap();
    for _ in 0..20 {
        if poll_once(log_reader.next_batch(partition, 5)).is_ready() {
            log_reader.seek(partition, Offset(0)).await.unwrap();
        }
    }
    assert_eq!(log_reader.next_batch(partition, 5).await.unwrap().from, Offset(0));
}

pub async fn bounds_follow_the_log(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let partition = Partition(11);
    let empty = log_reader.bounds(partition).await.unwrap();
    assert_eq!((empty.start, empty.end), (Offset(0), Offset(0)));
    publish_to(&log_writer, partition, 0..3).await;
    let bounds = log_reader.bounds(partition).await.unwrap();
    assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(3)));
}

pub async fn a_waiting_reader_is_woken(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let partition = Partition(5);
    log_reader.seek(partition, Offset(0)).await.unwrap();
    let (batch, ()) = join(log_reader.next_batch(partition, 10), publish_to(&log_writer, partition, 0..1)).await;
    assert_eq!(batch.unwrap().records.len(), 1);
}

pub async fn every_partition_is_assigned_once(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let all: Vec<Partition> = (0..log_writer.partitions()).map(Partition).collect();
    assert_eq!(log_reader.partitions(), log_writer.partitions());
    assert_eq!(log_reader.assignment().await.unwrap(), Assignment::Assigned(all));
    assert!(poll_once(log_reader.assignment()).is_pending());
}

pub async fn a_dead_letter_is_stored_once(_: TheLogWriter, log_reader: TheLogReader) {
    let letter = |offset| letter(offset, b"key".to_vec(), vec![0, 255]);
    log_reader.send_to_dead_letters(&[letter(4), letter(9)]).await.unwrap();
    log_reader.send_to_dead_letters(&[letter(4)]).await.unwrap();
    assert_eq!(dead_letters(&log_reader, Partition(2)).await, [letter(4), letter(9)]);
    assert_eq!(dead_letters(&log_reader, Partition(3)).await, []);
}

pub async fn dead_letters_are_read_in_bounded_parts(_: TheLogWriter, log_reader: TheLogReader) {
    // Together they are larger than a part may be.
    let letters: Vec<_> = (0..2_000).map(|offset| letter(offset, Vec::new(), vec![7; 2_000])).collect();
    for letters in letters.chunks(500) {
        log_reader.send_to_dead_letters(letters).await.unwrap();
    }
    let mut reader = log_reader.dead_letters(Partition(2)).await.unwrap();
    let (mut found, mut parts) = (Vec::new(), 0);
    while let Some(part) = reader.next_part().await.unwrap() {
        let bytes: usize = part.letters.iter().map(|letter| letter.invalid.value.len()).sum();
        assert!(bytes <= 2_000_000, "a part has {bytes} bytes");
        found.extend(part.letters);
        parts += 1;
    }
    assert!(parts > 1, "all dead letters are in one part");
    assert!(reader.next_part().await.unwrap().is_none(), "a reader at the end stays there");
    assert_eq!(found, letters);
}

pub async fn a_record_of_any_size_can_be_a_dead_letter(_: TheLogWriter, log_reader: TheLogReader) {
    let sizes = [(0, 0), (3, 60_000), (3, 65_536), (3, 65_537), (5_000, 0), (3, 1_020_000), (1_020_000, 3)];
    let letters: Vec<_> =
        (0..).zip(sizes).map(|(n, (key, value))| letter(n, vec![b'k'; key], vec![7; value])).collect();
    log_reader.send_to_dead_letters(&letters).await.unwrap();
    let stored = dead_letters(&log_reader, Partition(2)).await;
    assert_eq!(stored.len(), letters.len());
    for (stored, sent) in stored.iter().zip(&letters) {
        assert_eq!((stored.position, stored.accepted_at, stored.size), (sent.position, sent.accepted_at, sent.size));
        let (stored_record, sent_record) = (&stored.invalid, &sent.invalid);
        assert_eq!(stored_record.reason, sent_record.reason);
        if stored.is_truncated {
            assert_ne!(stored_record, sent_record, "a whole dead letter is marked as truncated");
            assert!(sent_record.key.starts_with(&stored_record.key));
            assert!(sent_record.value.starts_with(&stored_record.value));
            let is_small = sent_record.key.len() <= 1_000 && sent_record.value.len() <= 65_536;
            assert!(!is_small, "a small record was truncated");
        } else {
            assert_eq!(stored_record, sent_record);
        }
    }
}

fn letter(offset: u64, key: Vec<u8>, value: Vec<u8>) -> DeadLetter {
    let position = LogPosition { partition: Partition(2), offset: Offset(offset) };
    DeadLetter::whole(position, NOON, InvalidRecord { reason: format!("invalid record {offset}"), key, value })
}

/// Returns the dead letters of a partition, sorted by offset.
async fn dead_letters(log_reader: &TheLogReader, partition: Partition) -> Vec<DeadLetter> {
    let mut reader = log_reader.dead_letters(partition).await.unwrap();
    let mut letters = Vec::new();
    while let Some(part) = reader.next_part().await.unwrap() {
        assert_eq!(part.foreign, []);
        letters.extend(part.letters);
    }
    letters.sort_by_key(|letter| letter.position.offset);
    letters
}

pub async fn flushing_completes_every_receipt(log_writer: TheLogWriter, _: TheLogReader) {
    let pending: Vec<_> = (0..100).map(|n| log_writer.publish(Partition(6), vote(n)).unwrap()).collect();
    log_writer.flush().await;
    for receipt in pending {
        assert!(poll_once(receipt).is_ready());
    }
}

pub async fn old_counted_votes_expire_from_the_log(log_writer: TheLogWriter, log_reader: TheLogReader) {
    let (partition, other, day) = (Partition(7), Partition(8), Retention::Age(DAY));
    publish_to(&log_writer, partition, 0..50).await;
    publish_to(&log_writer, other, 0..20).await;
    let expire = async |counted: u64, retention| {
        let counted = [(partition, Offset(counted)), (other, Offset(0))];
        log_reader.expire(&counted, retention, NOON.after(2 * DAY)).await.unwrap()
    };
    assert_eq!(expire(30, day).await, 30);
    let bounds = Bounds { start: Offset(30), end: Offset(50) };
    assert_eq!(log_reader.bounds(partition).await.unwrap(), bounds);
    assert_eq!(log_reader.bounds(other).await.unwrap(), Bounds { start: Offset(0), end: Offset(20) });
    assert_eq!(expire(10, day).await, 0);
    assert_eq!(expire(50, Retention::Age(3 * DAY)).await, 0);
    assert_eq!(expire(50, Retention::Bytes(1_000_000_000)).await, 0);
    assert_eq!(log_reader.bounds(partition).await.unwrap(), bounds);
    log_reader.seek(partition, Offset(30)).await.unwrap();
    let batch = log_reader.next_batch(partition, 1).await.unwrap();
    assert_eq!(batch.records[0].vote.as_ref().unwrap().vote_id, super::vote_id(30));
    // A log whose records have all expired continues at the same offset.
    expire(50, day).await;
    assert_eq!(log_reader.bounds(partition).await.unwrap(), Bounds { start: Offset(50), end: Offset(50) });
    publish_to(&log_writer, partition, 50..51).await;
    assert_eq!(log_reader.bounds(partition).await.unwrap(), Bounds { start: Offset(50), end: Offset(51) });
}

pub async fn counted_votes_of_all_partitions_expire_by_their_age(log_writer: TheLogWriter, log_reader: TheLogReader) {
    // Vote n was accepted 7 n ms after noon.
    let partitions = [Partition(1), Partition(2), Partition(3)];
    for partition in partitions {
        publish_to(&log_writer, partition, 0..40).await;
    }
    let counted = [(partitions[0], Offset(40)), (partitions[1], Offset(5)), (partitions[2], Offset(40))];
    let expired = log_reader.expire(&counted, Retention::Age(DAY), NOON.after(DAY + Duration::from_millis(140))).await;
    assert_eq!(expired.unwrap(), 20 + 5 + 20);
    for (partition, start) in partitions.into_iter().zip([20, 5, 20]) {
        let bounds = Bounds { start: Offset(start), end: Offset(40) };
        assert_eq!(log_reader.bounds(partition).await.unwrap(), bounds, "{partition}");
    }
}
