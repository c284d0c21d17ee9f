//! The audit reads each store a bounded number of times.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use service::{Config, Health, health::Criticality};
use stores::Stores;
use votes::{
    Assignment, Batch, Bounds, Counted, Counter, Cursor, DeadLetter, DeadLetterPart, DeadLetterReader, ForeignRecord,
    HealthDetails, InvalidRecord, LogReader, Offset, Partition, Retention, Store, StoreError, UnixMillis,
    conformance::vote,
};

const PARTITION: Partition = Partition(3);

/// A log reader that reads every hundredth record as an invalid record. It counts the reads of the dead letters.
struct CountingReader {
    log_reader: Arc<dyn LogReader>,
    reads: AtomicUsize,
}

fn is_invalid(offset: Offset) -> bool {
    offset.0 % 100 == 7
}

#[async_trait::async_trait]
impl Store for CountingReader {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        self.log_reader.check().await
    }
}

#[async_trait::async_trait]
impl LogReader for CountingReader {
    fn partitions(&self) -> u16 {
        self.log_reader.partitions()
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        self.log_reader.assignment().await
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.log_reader.bounds(partition).await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        self.log_reader.seek(partition, at).await
    }

    async fn next_batch(&self, partition: Partition, max_records: usize) -> Result<Batch, StoreError> {
        let mut batch = self.log_reader.next_batch(partition, max_records).await?;
        for record in batch.records.iter_mut().filter(|record| is_invalid(record.offset)) {
            record.vote = Err(InvalidRecord { reason: "no vote".to_owned(), key: Vec::new(), value: vec![0; 10] });
        }
        Ok(batch)
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        self.log_reader.commit(partition, position).await
    }

    async fn expire(
        &self,
        counted: &[(Partition, Offset)],
        retention: Retention,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        self.log_reader.expire(counted, retention, now).await
    }

    async fn send_to_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.log_reader.send_to_dead_letters(dead_letters).await
    }

    async fn dead_letters(&self, partition: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mut reader = self.log_reader.dead_letters(partition).await?;
        let mut all = DeadLetterPart::default();
        while let Some(part) = reader.next_part().await? {
            all.letters.extend(part.letters);
        }
        all.foreign.push(ForeignRecord { partition, offset: Offset(0), problem: "foreign".to_owned() });
        Ok(Box::new(Some(all)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_reads_the_dead_letters_of_a_partition_once_and_skips_foreign_records() {
    let folder = tempfile::tempdir().unwrap();
    let url = "embedded:";
    let flags = json!({ "data": folder.path().join("data"), "vote_log": url, "tallies": url, "ledger": url });
    let stores = Stores::open(&Config::load(None, flags, 0).unwrap(), &Health::default()).unwrap();
    let log_writer = stores.log_writer(Criticality::Required).await.unwrap();
    let (ledger, tallies) =
        (stores.ledger(Criticality::Required).await.unwrap(), stores.tallies(Criticality::Required).await.unwrap());
    let log_reader = CountingReader {
        log_reader: stores.standalone_log_reader(Criticality::Required).await.unwrap(),
        reads: AtomicUsize::new(0),
    };
    let receipts: Vec<_> = (0..3_500).map(|n| log_writer.publish(PARTITION, vote(n)).unwrap()).collect();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let counter = Counter::new(ledger.clone(), Arc::clone(&tallies));
    let mut cursor = Cursor { recorded: Offset(0), tallied: Offset(0), cut_off: Offset(0) };
    let mut sent = BTreeSet::new();
    log_reader.seek(PARTITION, Offset(0)).await.unwrap();
    while cursor.recorded < Offset(3_500) {
        let batch = log_reader.next_batch(PARTITION, 1_000).await.unwrap();
        let letters = batch.dead_letters();
        sent.extend(letters.iter().map(|letter| letter.position.offset));
        log_reader.send_to_dead_letters(&letters).await.unwrap();
        match counter.count(cursor, batch).await.unwrap() {
            Counted::Done { cursor: after, .. } => cursor = after,
            Counted::PositionsChanged => panic!("nothing else counts"),
        }
    }
    assert_eq!(sent.len(), 35);

    let report = votes::audit(&log_reader, &*ledger, &*tallies, &mut |_, _| ()).await.unwrap();
    assert!(report.ok, "{report:?}");
    assert_eq!((report.log, report.dead_letters, report.foreign_records), (3_500, 35, 1));
    assert_eq!(log_reader.reads.load(Ordering::Relaxed), 1, "reads of the dead letters");
}
