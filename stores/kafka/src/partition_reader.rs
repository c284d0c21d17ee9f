//! Collects the records of one partition into batches.

use std::{sync::Arc, time::Duration};

use log_record::NewerRecord;
use rdkafka::{Message, consumer::base_consumer::PartitionQueue, error::KafkaError, message::BorrowedMessage};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout_at},
};
use votes::{Offset, Partition, Record, StoreError, UnixMillis};

use crate::{
    address::Address,
    client::{failed, header_of},
    expire::RecordSizeStats,
    fetcher::{Client, Fetcher},
    tail,
    topic_id::TopicIdWatcher,
};

/// The time that the next batch waits for more records, for each record of the previous batch. A vote that arrives
/// alone is counted almost at once. Under load the stores get fewer and larger batches, because a batch costs the
/// stores more than a vote.
const LINGER_PER_VOTE: Duration = Duration::from_millis(5);

/// The longest time that a batch waits for more records. It begins at the end of the previous batch.
const MAX_LINGER: Duration = Duration::from_millis(100);

/// The records of one partition that are not yet in a batch.
#[derive(Default)]
pub(crate) struct PartitionReader {
    pub(crate) queue: Option<(PartitionQueue<TopicIdWatcher>, Arc<Notify>)>,
    /// The fetcher whose client has the queue.
    pub(crate) fetcher: Option<Arc<Fetcher>>,
    /// The generation of the topic whose records the caller has read. Before the caller gets records of another topic
    /// of this name, it gets an error.
    pub(crate) topic_generation: u64,
    /// Where the next batch begins.
    pub(crate) from: Offset,
    /// The records of the next batch that were already taken from the queue.
    pub(crate) records: Vec<Record>,
    /// The error of a record after `records` that a newer release wrote. The next batch ends before that record, and
    /// the read after that batch returns the error.
    pub(crate) newer: Option<NewerRecord>,
    /// Until when the next batch waits for more records.
    pub(crate) linger_until: Option<Instant>,
    /// The check for offsets without a record at the end of the log.
    pub(crate) end_check: EndCheck,
    /// The end of the log, if the log has no record from `from` up to there.
    pub(crate) empty_until: Option<Offset>,
}

/// The state of the [check](tail::end_without_records) for offsets without a record at the end of the log.
#[derive(Default)]
pub(crate) enum EndCheck {
    /// No check is due: records have arrived since the reader was last at the end of the log, or the check is done.
    #[default]
    Idle,
    /// All records up to the end of the log have arrived. If no other record arrives, the check starts at this time.
    Due(Instant),
    /// The task goes on if the caller drops the future of the read.
    Running(JoinHandle<Result<Option<Offset>, StoreError>>),
}

impl PartitionReader {
    /// Waits for at least one record, then takes records from the queue until there are `max_records` or the linger
    /// ends. Returns without a record if the log ends behind offsets that have no record; `empty_until` is then its end.
    /// The records stay in `self`, so a caller that drops the future loses no record.
    pub(crate) async fn read_batch(
        &mut self,
        partition: Partition,
        max_records: usize,
        (client, address): (&Arc<Client>, &Address),
        sizes: &RecordSizeStats,
    ) -> Result<(), StoreError> {
        let Self { queue, records, newer, linger_until, end_check, empty_until, from, .. } = self;
        let too_new = |error: NewerRecord| failed(format!("partition {partition}: {error}"));
        if records.is_empty()
            && let Some(newer) = newer.take()
        {
            return Err(too_new(newer));
        }
        let (queue, not_empty) = queue.as_ref().ok_or_else(|| no_position(partition))?;
        while records.len() < max_records && newer.is_none() {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    *end_check = EndCheck::Idle;
                    sizes.record(&message);
                    match read(&message)? {
                        Ok(record) => records.push(record),
                        Err(error) if records.is_empty() => return Err(too_new(error)),
                        Err(error) => *newer = Some(error),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    *end_check = EndCheck::Due(Instant::now() + tail::CHECK_DELAY);
                }
                Some(Err(error)) => return Err(failed(format!("partition {partition}: {error}"))),
                None if records.is_empty() && empty_until.is_some() => return Ok(()),
                None if records.is_empty() => tokio::select! {
                    () = not_empty.notified() => {}
                    end = end_check.run(client, address, partition, *from) => *empty_until = end,
                },
                None => match *linger_until {
                    Some(until) if timeout_at(until, not_empty.notified()).await.is_ok() => {}
                    _ => break,
                },
            }
        }
        Ok(())
    }
}

impl EndCheck {
    /// Waits until the check is due, and runs it. Returns the end of the log if the log has no record at or after
    /// `from`. If the future is dropped, the check goes on, and the next call returns its result.
    async fn run(
        &mut self,
        client: &Arc<Client>,
        address: &Address,
        partition: Partition,
        from: Offset,
    ) -> Option<Offset> {
        loop {
            match self {
                Self::Idle => std::future::pending().await,
                Self::Due(at) => {
                    sleep_until(*at).await;
                    let (client, address) = (Arc::clone(client), address.clone());
                    let check = move || tail::end_without_records(&client, &address, partition, from);
                    *self = Self::Running(spawn_blocking(check));
                }
                Self::Running(check) => {
                    let checked = check.await.map_err(failed).flatten();
                    *self = Self::Idle;
                    match checked {
                        Ok(Some(end)) => return Some(end),
                        Ok(None) => {}
                        Err(error) => {
                            tracing::debug!(%partition, %error, "the end of the log is not known");
                            *self = Self::Due(Instant::now() + tail::CHECK_DELAY);
                        }
                    }
                }
            }
        }
    }
}

/// Returns how long the next batch may wait for more records, after a batch of `records` records.
pub(crate) fn batch_linger(records: usize) -> Duration {
    u32::try_from(records).map_or(MAX_LINGER, |records| MAX_LINGER.min(LINGER_PER_VOTE.saturating_mul(records)))
}

pub(crate) fn no_position(partition: Partition) -> StoreError {
    failed(format!("partition {partition} has no position: seek before reading"))
}

fn read(message: &BorrowedMessage<'_>) -> Result<Result<Record, NewerRecord>, StoreError> {
    let offset = Offset(u64::try_from(message.offset()).map_err(failed)?);
    let accepted_at = UnixMillis(message.timestamp().to_millis().unwrap_or_default());
    let trace = header_of(message, "traceparent");
    let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    let vote = log_record::decode(key, accepted_at, value, trace);
    Ok(vote.map(|vote| Record { offset, accepted_at, vote }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lingers_longer_under_load_up_to_the_maximum() {
        assert_eq!(batch_linger(0), Duration::ZERO);
        assert_eq!(batch_linger(1), Duration::from_millis(5));
        assert_eq!(batch_linger(10), Duration::from_millis(50));
        assert_eq!(batch_linger(1_000), MAX_LINGER);
        assert_eq!(batch_linger(usize::MAX), MAX_LINGER);
    }
}
