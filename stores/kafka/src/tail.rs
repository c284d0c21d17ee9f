//! The end of a partition whose last offsets have no record.
//!
//! The end of a transaction takes an offset, and no client ever receives it as a record. If another program has written
//! with transactions, such an offset may be the last one of a partition. Without this check, the lag of the partition
//! would never be 0, and the audit would report uncounted records.
//!
//! The check skips no record. It reads the partition with a client of its own, from the position of the reader. librdkafka
//! reports the end of a partition in its statistics (`eof_offset`) only after it has put all records before that offset
//! in the queue of the client. So if the queue is empty after such a report, there is no record between the position and
//! that offset. The client is new, so the report can't be of an earlier read.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};
use votes::{Offset, Partition, StoreError};

use crate::{
    address::Address,
    client::{ClientStatus, failed},
    fetcher::Client,
};

/// How long a reader waits for another record at the end of the log, before it checks where the log ends.
pub(crate) const CHECK_DELAY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };

/// The longest time of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(4);

/// The longest time that a broker may take for a request for offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The time between two reports of the client, and the longest time that a broker waits for a record.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// The longest time of one poll. It is shorter than the time between two reports, so some polls handle no report.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

/// Returns the end of a partition, if the partition has offsets at or after `from`, but no record there. Otherwise returns
/// `None`. `client` is the client that fetches the partition. Blocks.
pub(crate) fn end_without_records(
    client: &Client,
    address: &Address,
    partition: Partition,
    from: Offset,
) -> Result<Option<Offset>, StoreError> {
    let number = i32::from(partition.0);
    let from = i64::try_from(from.0).map_err(failed)?;
    let (_, end) = client.fetch_watermarks(&address.topic, number, REQUEST_TIMEOUT).map_err(failed)?;
    if end <= from {
        return Ok(None);
    }
    let mut config = address.reader();
    config
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", REPORT_INTERVAL.as_millis().to_string())
        .set("statistics.interval.ms", REPORT_INTERVAL.as_millis().to_string());
    let context = EndReports {
        status: ClientStatus::default(),
        topic: address.topic.clone(),
        partition: number,
        end: AtomicI64::new(-1),
        events: AtomicU64::new(0),
    };
    let client: BaseConsumer<EndReports> = BaseConsumer::from_config_and_context(&config, context).map_err(failed)?;
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&address.topic, number, rdkafka::Offset::Offset(from)).map_err(failed)?;
    client.assign(&list).map_err(failed)?;
    let begun = Instant::now();
    loop {
        // The queue had all records before this end when the poll began.
        let reported_end = client.context().end.load(Ordering::Acquire);
        let events = client.context().events.load(Ordering::Relaxed);
        let is_empty = match client.poll(POLL_TIMEOUT) {
            Some(Ok(_)) => return Ok(None),
            Some(Err(KafkaError::PartitionEOF(_))) => false,
            Some(Err(error)) => return Err(failed(error)),
            // A poll that has handled an event may return `None` although the queue has a record.
            None => client.context().events.load(Ordering::Relaxed) == events,
        };
        // After a change of the leader, the end may be lower for a moment. Wait until it is as high as before.
        if is_empty && reported_end >= end {
            return u64::try_from(reported_end).map(|end| Some(Offset(end))).map_err(failed);
        }
        if begun.elapsed() > CHECK_TIMEOUT {
            return Err(failed(format!("partition {partition}: the end {end} was not reached")));
        }
    }
}

/// The context of the client. It stores the last end that the client has reported.
struct EndReports {
    status: ClientStatus,
    topic: String,
    partition: i32,
    /// The end, or a negative number if the client has not reached the end.
    end: AtomicI64,
    /// The number of events that were handled. They do not include records and ends.
    events: AtomicU64,
}

impl ConsumerContext for EndReports {}

impl ClientContext for EndReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.status.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.status.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let topic = statistics.topics.get(&self.topic);
        if let Some(partition) = topic.and_then(|topic| topic.partitions.get(&self.partition)) {
            self.end.store(partition.eof_offset, Ordering::Release);
        }
        self.status.stats(statistics);
    }
}
