//! Transactions of other programs on the topic of votes. They hide no vote, and the offsets that their ends take are no
//! uncounted records.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::{
    task::spawn_blocking,
    time::{sleep, timeout},
};
use uuid::Uuid;
use votes::{Bounds, LogReader, Offset};

use super::topic::{P, TEST_TIMEOUT, Topic, next_batch, publish, read_to};
use crate::log_reader::KafkaLogReader;

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Commit,
    Abort,
    Open,
}

/// Writes `records` records in a transaction. Returns the producer, which keeps an open transaction open.
async fn transaction(topic: &Topic, records: usize, end: End) -> BaseProducer {
    let mut config = topic.client();
    config.set("transactional.id", Uuid::now_v7().to_string());
    let name = topic.name.clone();
    let run = move || {
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(TEST_TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        for _ in 0..records {
            let record = BaseRecord::to(&name).partition(i32::from(P.0)).key("key").payload("no vote");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(TEST_TIMEOUT).unwrap();
        match end {
            End::Commit => producer.commit_transaction(TEST_TIMEOUT).unwrap(),
            End::Abort => producer.abort_transaction(TEST_TIMEOUT).unwrap(),
            End::Open => {}
        }
        producer
    };
    spawn_blocking(run).await.unwrap()
}

/// Waits until the log ends at this offset. Brokers write the end of a transaction after the producer has its response.
async fn wait_for_end(log_reader: &KafkaLogReader, end: Offset) {
    let ended = async {
        while log_reader.bounds(P).await.unwrap().end < end {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, ended).await.expect("the end of the transaction");
    assert_eq!(log_reader.bounds(P).await.unwrap().end, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_behind_an_open_transaction_are_read() {
    let topic = Topic::create(1).await;
    let (log_writer, log_reader) = (topic.writer().await, topic.reader().await);
    let open = transaction(&topic, 1, End::Open).await;
    for number in 0..5 {
        assert_eq!(publish(&log_writer, number).await, Offset(number + 1));
    }
    assert_eq!(log_reader.bounds(P).await.unwrap(), Bounds { start: Offset(0), end: Offset(6) });
    log_reader.seek(P, Offset(0)).await.unwrap();
    let mut records = Vec::new();
    while records.len() < 6 {
        records.extend(next_batch(&log_reader).await.records);
    }
    let is_vote: Vec<_> = records.iter().map(|record| record.vote.is_ok()).collect();
    assert_eq!(is_vote, [false, true, true, true, true, true]);
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ends_behind_the_end_of_a_transaction() {
    for end in [End::Commit, End::Abort] {
        let topic = Topic::create(1).await;
        let (log_writer, log_reader) = (topic.writer().await, topic.reader().await);
        assert_eq!(publish(&log_writer, 0).await, Offset(0));
        transaction(&topic, 2, end).await;
        // The vote, two records of the transaction, and its end.
        wait_for_end(&log_reader, Offset(4)).await;
        log_reader.seek(P, Offset(0)).await.unwrap();
        assert_eq!(read_to(&log_reader, Offset(4)).await, [0, 1, 2].map(Offset), "{end:?}");
        // The reader waits there for the next record.
        let waiting = timeout(Duration::from_millis(500), log_reader.next_batch(P, 10)).await;
        assert!(waiting.is_err(), "{end:?}: {waiting:?}");
        let (batch, offset) = tokio::join!(next_batch(&log_reader), publish(&log_writer, 1));
        assert_eq!((offset, batch.from, batch.records[0].offset), (Offset(4), Offset(4), Offset(4)), "{end:?}");
        // A reader that begins at the end of the transaction passes it, too.
        transaction(&topic, 1, end).await;
        wait_for_end(&log_reader, Offset(7)).await;
        log_reader.seek(P, Offset(6)).await.unwrap();
        assert_eq!(read_to(&log_reader, Offset(7)).await, [], "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_end_of_a_log_without_transactions_waits() {
    let topic = Topic::create(1).await;
    let (log_writer, log_reader) = (topic.writer().await, topic.reader().await);
    publish(&log_writer, 0).await;
    log_reader.seek(P, Offset(0)).await.unwrap();
    assert_eq!(next_batch(&log_reader).await.to, Offset(1));
    // Longer than the delay of the check.
    let waiting = timeout(Duration::from_secs(1), log_reader.next_batch(P, 10)).await;
    assert!(waiting.is_err(), "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_skipped_while_transactions_and_votes_alternate() {
    let topic = Topic::create(1).await;
    let (log_writer, log_reader) = (topic.writer().await, topic.reader().await);
    log_reader.seek(P, Offset(0)).await.unwrap();
    let write = async {
        let mut votes = Vec::new();
        for round in 0..60_u64 {
            let end = if round % 3 == 0 { End::Abort } else { End::Commit };
            if round % 2 == 0 {
                transaction(&topic, 1, end).await;
            }
            // Some pauses are about as long as the delay of the check, so that votes arrive while a check runs.
            sleep(Duration::from_millis(round * 7 % 160)).await;
            for vote in 0..round % 3 {
                votes.push(publish(&log_writer, round * 10 + vote).await);
            }
        }
        transaction(&topic, 1, End::Commit).await;
        votes
    };
    let read = async {
        let (mut offsets, mut at, mut transactions) = (Vec::new(), Offset(0), 0);
        // The last transaction is the 31st.
        while transactions < 31 {
            // A consumer drops a read from time to time.
            let Ok(batch) = timeout(Duration::from_millis(30), log_reader.next_batch(P, 3)).await else { continue };
            let batch = batch.unwrap();
            assert_eq!(batch.from, at);
            at = batch.to;
            for record in batch.records {
                transactions += usize::from(record.vote.is_err());
                if record.vote.is_ok() {
                    offsets.push(record.offset);
                }
            }
        }
        (offsets, at)
    };
    let (votes, (read, at)) = timeout(TEST_TIMEOUT * 3, async { tokio::join!(write, read) }).await.unwrap();
    assert_eq!(read, votes);
    let end = log_reader.bounds(P).await.unwrap().end;
    if at < end {
        assert_eq!(read_to(&log_reader, end).await, []);
    }
}
