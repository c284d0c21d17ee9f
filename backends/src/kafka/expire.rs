//! Letting go of what is counted. Kafka's own retention would delete by age or size whatever it is, also votes that nobody has
//! counted yet; so records are deleted by request.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rdkafka::{
    Offset as At, TopicPartitionList, admin::AdminOptions, consumer::Consumer, message::BorrowedMessage,
    topic_partition_list::TopicPartitionListElem,
};
use votes::{Bounds, Offset, Partition, Retention, StoreError, UnixMillis};

use super::{address::Address, feed::failed, identity::Identity, topic};

/// How long the brokers may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Bytes of a record besides its key and value: its headers, and what Kafka itself keeps of it.
const OVERHEAD: u64 = 160;

/// How large the records are that were read.
#[derive(Default)]
pub(super) struct Sizes {
    bytes: AtomicU64,
    records: AtomicU64,
}

impl Sizes {
    pub(super) fn note(&self, message: &BorrowedMessage<'_>) {
        let length = message.key_len() + message.payload_len();
        self.bytes.fetch_add(length as u64 + OVERHEAD, Ordering::Relaxed);
        self.records.fetch_add(1, Ordering::Relaxed);
    }

    /// About how many bytes so many records take, if any was read.
    fn of(&self, records: u64) -> Option<f64> {
        let read = self.records.load(Ordering::Relaxed);
        (read > 0).then(|| self.bytes.load(Ordering::Relaxed) as f64 / read as f64 * records as f64)
    }
}

/// The first offset that is kept of a partition that may take its share of so many bytes.
pub(super) fn first_kept(sizes: &Sizes, bounds: Bounds, bytes: u64, partitions: u16) -> Offset {
    let records = bounds.end.0 - bounds.start.0;
    // The others are as long: keys spread votes evenly.
    let used = sizes.of(records).unwrap_or_default() * f64::from(partitions);
    Retention::kept(bytes, used, records).map_or(bounds.start, |kept| Offset(bounds.end.0 - kept))
}

/// The first offset with a vote that was accepted at or after a time; `None` if there is none.
pub(super) fn first_since(
    client: &impl Consumer<Identity>,
    topic: &str,
    partition: Partition,
    time: UnixMillis,
) -> Result<Option<Offset>, StoreError> {
    let mut times = TopicPartitionList::with_capacity(1);
    times.add_partition_offset(topic, i32::from(partition.0), At::Offset(time.0)).map_err(failed)?;
    let found = client.offsets_for_times(times, ANSWER).map_err(failed)?;
    let offset = found.elements().first().map(TopicPartitionListElem::offset);
    match offset {
        Some(At::Offset(offset)) => Ok(Some(Offset(u64::try_from(offset).map_err(failed)?))),
        _ => Ok(None),
    }
}

/// Deletes a partition's records below an offset.
pub(super) async fn delete(address: &Address, partition: Partition, to: Offset) -> Result<(), StoreError> {
    let mut below = TopicPartitionList::with_capacity(1);
    let at = At::Offset(i64::try_from(to.0).map_err(failed)?);
    below.add_partition_offset(&address.topic, i32::from(partition.0), at).map_err(failed)?;
    let admin = topic::admin(address).map_err(|_| failed("Kafka's client can't be made"))?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let deleted = admin.delete_records(&below, &options).await.map_err(failed)?;
    deleted.elements().iter().try_for_each(TopicPartitionListElem::error).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_keeps_its_share() {
        let sizes = Sizes { bytes: AtomicU64::new(3_000), records: AtomicU64::new(10) };
        let bounds = Bounds { start: Offset(1_000), end: Offset(2_000) };
        // A thousand records of 300 bytes in each of ten partitions are 3 MB.
        assert_eq!(first_kept(&sizes, bounds, 6_000_000, 10), Offset(1_000));
        assert_eq!(first_kept(&sizes, bounds, 3_000_000, 10), Offset(1_700));
        assert_eq!(first_kept(&Sizes::default(), bounds, 1, 10), Offset(1_000), "nothing is known of its size");
    }
}
