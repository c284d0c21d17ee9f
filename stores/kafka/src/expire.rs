//! Deletes counted records that the retention no longer covers, with requests to the brokers. The retention of Kafka
//! would also delete votes that are not counted yet.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList, admin::AdminOptions, consumer::Consumer, message::BorrowedMessage,
    topic_partition_list::TopicPartitionListElem,
};
use votes::{Bounds, Offset, Partition, Retention, StoreError, UnixMillis};

use crate::{admin::Admin, client::failed, topic_id::TopicIdWatcher};

/// The longest time that the brokers may take for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The estimated bytes of a record in addition to its key and value: its headers, and the fields that Kafka adds.
const RECORD_OVERHEAD: u64 = 160;

/// The total size and the number of the records that this process has read.
#[derive(Default)]
pub(super) struct RecordSizeStats {
    bytes: AtomicU64,
    records: AtomicU64,
}

impl RecordSizeStats {
    pub(super) fn record(&self, message: &BorrowedMessage<'_>) {
        let length = message.key_len() + message.payload_len();
        self.bytes.fetch_add(length as u64 + RECORD_OVERHEAD, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    /// Estimates the bytes of a number of records, from their average size. Returns `None` until a record was read.
    fn estimate(&self, records: u64) -> Option<f64> {
        let read = self.records.load(Ordering::Relaxed);
        (read > 0).then(|| self.bytes.load(Ordering::Relaxed) as f64 / read as f64 * records as f64)
    }
}

/// Returns the first offset to retain, if all partitions together may use `bytes`.
pub(super) fn first_retained(sizes: &RecordSizeStats, bounds: Bounds, bytes: u64, partitions: u16) -> Offset {
    let records = bounds.end.0 - bounds.start.0;
    // The other partitions have about the same size, because the keys spread votes evenly.
    let used = sizes.estimate(records).unwrap_or_default() * f64::from(partitions);
    Retention::records_to_retain(bytes, used, records).map_or(bounds.start, |retained| Offset(bounds.end.0 - retained))
}

/// Returns the offset of the first vote that was accepted at or after `time`, or `None` if there is no such vote.
/// Blocks.
pub(super) fn first_since(
    client: &impl Consumer<TopicIdWatcher>,
    topic: &str,
    partition: Partition,
    time: UnixMillis,
) -> Result<Option<Offset>, StoreError> {
    let mut times = TopicPartitionList::with_capacity(1);
    times.add_partition_offset(topic, i32::from(partition.0), KafkaOffset::Offset(time.0)).map_err(failed)?;
    let found = client.offsets_for_times(times, REQUEST_TIMEOUT).map_err(failed)?;
    let offset = found.elements().first().map(TopicPartitionListElem::offset);
    match offset {
        Some(KafkaOffset::Offset(offset)) => Ok(Some(Offset(u64::try_from(offset).map_err(failed)?))),
        _ => Ok(None),
    }
}

/// Deletes the records of a partition with offsets below `to`.
pub(super) async fn delete_records(
    admin: &Admin,
    topic: &str,
    partition: Partition,
    to: Offset,
) -> Result<(), StoreError> {
    let mut offsets = TopicPartitionList::with_capacity(1);
    let offset = KafkaOffset::Offset(i64::try_from(to.0).map_err(failed)?);
    offsets.add_partition_offset(topic, i32::from(partition.0), offset).map_err(failed)?;
    let client = admin.client().await.map_err(|_| failed("a Kafka client can't be created"))?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
    let deleted = match client.delete_records(&offsets, &options).await {
        Ok(deleted) => deleted,
        Err(error) => {
            admin.replace().await;
            return Err(failed(error));
        }
    };
    deleted.elements().iter().try_for_each(TopicPartitionListElem::error).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_retains_its_share_of_the_bytes() {
        let sizes = RecordSizeStats { bytes: AtomicU64::new(3_000), records: AtomicU64::new(10) };
        let bounds = Bounds { start: Offset(1_000), end: Offset(2_000) };
        // A thousand records of 300 bytes in each of ten partitions are 3 MB.
        assert_eq!(first_retained(&sizes, bounds, 6_000_000, 10), Offset(1_000));
        assert_eq!(first_retained(&sizes, bounds, 3_000_000, 10), Offset(1_700));
        assert_eq!(first_retained(&RecordSizeStats::default(), bounds, 1, 10), Offset(1_000), "no record was read yet");
    }
}
