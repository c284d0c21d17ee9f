//! Deletes counted records that the retention no longer covers, with requests to the brokers. The retention of Kafka
//! would also delete votes that are not counted yet.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList, admin::AdminOptions, consumer::Consumer, message::BorrowedMessage,
};
use votes::{Bounds, Offset, Partition, Retention, StoreError, UnixMillis};

use crate::{
    admin::Admin,
    client::failed,
    fetcher::{Client, fetch_bounds},
};

/// The longest time that the brokers may take for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time that a broker may take for the bounds of one partition.
const MAX_BOUNDS_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The time that a broker may take for the bounds of one partition after other partitions have taken
/// [`REQUEST_TIMEOUT`]. So the requests end soon if no broker responds, and a partition without a leader does not keep
/// the records of the other partitions.
const MIN_BOUNDS_TIMEOUT: Duration = Duration::from_millis(100);

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

/// The oldest records of one partition: those from the start of its bounds up to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OldestRecords {
    partition: Partition,
    bounds: Bounds,
    to: Offset,
}

impl OldestRecords {
    /// Removes the records at or after an offset.
    fn retain_from(&mut self, first: Offset) {
        self.to = self.to.min(first);
    }

    /// Returns the number of the offsets. A few of them may have no record.
    fn count(&self) -> u64 {
        self.to.0.saturating_sub(self.bounds.start.0)
    }
}

/// Returns the counted records of each partition that has some, and the error of the first partition whose bounds the
/// brokers did not return. `counted` has the offset up to which each partition is counted. Blocks.
pub(super) fn find_counted(
    client: &Client,
    topic: &str,
    counted: &[(Partition, Offset)],
) -> (Vec<OldestRecords>, Option<StoreError>) {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let (mut oldest, mut first_error) = (Vec::with_capacity(counted.len()), None);
    for &(partition, counted) in counted.iter().filter(|(_, counted)| *counted > Offset(0)) {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = remaining.clamp(MIN_BOUNDS_TIMEOUT, MAX_BOUNDS_TIMEOUT);
        match fetch_bounds(client, topic, partition, timeout) {
            Ok(bounds) => oldest.push(OldestRecords { partition, bounds, to: counted.min(bounds.end) }),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    oldest.retain(|records| records.count() > 0);
    (oldest, first_error)
}

/// Removes from the oldest records those that must be retained because all partitions together may use `bytes`.
pub(super) fn retain_bytes(sizes: &RecordSizeStats, bytes: u64, partitions: u16, oldest: &mut [OldestRecords]) {
    for records in oldest {
        records.retain_from(first_retained(sizes, records.bounds, bytes, partitions));
    }
}

/// Returns the first offset to retain, if all partitions together may use `bytes`.
fn first_retained(sizes: &RecordSizeStats, bounds: Bounds, bytes: u64, partitions: u16) -> Offset {
    let records = bounds.end.0 - bounds.start.0;
    // The other partitions have about the same size, because the keys spread votes evenly.
    let used = sizes.estimate(records).unwrap_or_default() * f64::from(partitions);
    Retention::records_to_retain(bytes, used, records).map_or(bounds.start, |retained| Offset(bounds.end.0 - retained))
}

/// Removes from the oldest records of each partition those at or after the first record that was accepted at `time` or
/// later. Blocks.
pub(super) fn retain_since(
    client: &Client,
    topic: &str,
    time: UnixMillis,
    oldest: &mut [OldestRecords],
) -> Result<(), StoreError> {
    if oldest.is_empty() {
        return Ok(());
    }
    // A negative number is not a time for Kafka.
    let time = KafkaOffset::Offset(time.0.max(0));
    let mut times = TopicPartitionList::with_capacity(oldest.len());
    for records in &*oldest {
        times.add_partition_offset(topic, i32::from(records.partition.0), time).map_err(failed)?;
    }
    let found = client.offsets_for_times(times, REQUEST_TIMEOUT).map_err(failed)?;
    for records in oldest {
        let partition = records.partition;
        let problem = |problem: String| failed(format!("partition {partition}: {problem}"));
        let element = found.find_partition(topic, i32::from(partition.0));
        let element = element.ok_or_else(|| problem("the brokers did not look for the time".to_owned()))?;
        // An element with an error still has the time in place of the offset.
        element.error().map_err(|error| problem(error.to_string()))?;
        match element.offset() {
            KafkaOffset::Offset(first) => records.retain_from(Offset(u64::try_from(first).map_err(failed)?)),
            // No record is that young, so all these records are older.
            KafkaOffset::End => {}
            other => return Err(problem(format!("the brokers returned {other:?} for a time"))),
        }
    }
    Ok(())
}

/// Deletes the oldest records of several partitions. Returns the number of deleted records.
///
/// # Errors
/// The error of the first partition whose records were not deleted. Those of the other partitions may be deleted.
pub(super) async fn delete_records(
    admin: &Admin,
    topic: &str,
    mut oldest: Vec<OldestRecords>,
) -> Result<u64, StoreError> {
    oldest.retain(|records| records.count() > 0);
    if oldest.is_empty() {
        return Ok(0);
    }
    let mut offsets = TopicPartitionList::with_capacity(oldest.len());
    for records in &oldest {
        let to = KafkaOffset::Offset(i64::try_from(records.to.0).map_err(failed)?);
        offsets.add_partition_offset(topic, i32::from(records.partition.0), to).map_err(failed)?;
    }
    let client = admin.client().await.map_err(|_| failed("a Kafka client can't be created"))?;
    let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
    let deleted = match client.delete_records(&offsets, &options).await {
        Ok(deleted) => deleted,
        Err(error) => {
            admin.replace().await;
            return Err(failed(error));
        }
    };
    for element in deleted.elements() {
        element.error().map_err(|error| failed(format!("partition {}: {error}", element.partition())))?;
    }
    Ok(oldest.iter().map(OldestRecords::count).sum())
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

    #[test]
    fn a_record_that_is_not_counted_is_retained() {
        let sizes = RecordSizeStats { bytes: AtomicU64::new(3_000), records: AtomicU64::new(10) };
        let bounds = Bounds { start: Offset(1_000), end: Offset(2_000) };
        let mut oldest = [1_500, 1_900].map(|to| OldestRecords { partition: Partition(0), bounds, to: Offset(to) });
        retain_bytes(&sizes, 3_000_000, 10, &mut oldest);
        assert_eq!(oldest.map(|records| records.to), [Offset(1_500), Offset(1_700)]);
        assert_eq!(oldest.map(|records| records.count()), [500, 700]);
    }
}
