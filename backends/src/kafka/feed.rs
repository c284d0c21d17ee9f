//! The consumers' end of the log.
//!
//! Reading is the same for everyone: a client without a group reads each partition from where its reader seeks, through a
//! queue of the partition's own. Counting consumers have a [`Group`] beside it that says which partitions are theirs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    Message, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::KafkaResult,
    message::BorrowedMessage,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use votes::{
    Assignment, Batch, Bounds, DeadLetter, Facts, Offset, Partition, Record, Store, StoreError, UnixMillis, VoteFeed,
};

use super::{
    STORE,
    address::Address,
    dead::DeadLetters,
    group::Group,
    header_of,
    identity::{self, Identity},
    topic::{self, Topic},
};
use crate::{
    open::{Membership, NotOpen},
    record,
};

/// The time from one batch of a partition to the next, for each record of the first. So a lone vote is counted at once, and
/// under load the stores are asked less often, as each question costs them more than a vote.
const PACE_EACH: Duration = Duration::from_millis(5);

/// The most of that time.
const PACE_MOST: Duration = Duration::from_millis(100);

/// How long brokers collect records, of all partitions, for one answer. Under load an answer for each record would cost more
/// than counting it; and this is a good part of the tenth of a second in which a lone vote is counted.
const COLLECT: Duration = Duration::from_millis(40);

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_millis(1_500);

/// Records of one partition that are fetched ahead of counting, in KiB. It bounds memory, as all partitions may have them.
const AHEAD_KIB: &str = "1024";

/// What the client says is heard when it says it, and in any case this often.
const HEAR: Duration = Duration::from_secs(1);

type Client = BaseConsumer<Identity>;

/// A reader of a topic.
pub(crate) struct KafkaFeed {
    topic: Topic,
    group: Option<Group>,
    /// A reader without a group has all partitions from the start, and hears so once.
    is_assigned: AtomicBool,
    client: Arc<Client>,
    lanes: Vec<tokio::sync::Mutex<Lane>>,
    fetching: Mutex<Fetching>,
    dead: DeadLetters,
}

#[derive(Default)]
struct Fetching {
    partitions: BTreeSet<Partition>,
    /// Partitions that the group took away: whoever still works on one must not fetch it again.
    revoked: BTreeSet<Partition>,
}

/// One partition's way from the client to batches.
#[derive(Default)]
struct Lane {
    queue: Option<(PartitionQueue<Identity>, Arc<Notify>)>,
    /// The generation of the log that its reader knows. A reader is told once of another log, before it gets records of it.
    generation: u64,
    /// Where the next batch begins.
    from: Offset,
    /// Records of the next batch that have already been taken from the queue.
    records: Vec<Record>,
    /// Until when the next batch waits for more of them.
    until: Option<Instant>,
}

/// Whether the log is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recognised {
    Known,
    /// No broker has been asked yet.
    Unknown,
}

impl Lane {
    /// Takes at least one record from the queue, and up to `most` as they come. What was taken stays in the lane, so that a
    /// caller who gives up has read nothing.
    async fn fill(&mut self, partition: Partition, most: usize) -> Result<(), StoreError> {
        let Self { queue, records, until, .. } = self;
        let (queue, filled) = queue.as_ref().ok_or_else(|| failed(format!("partition {partition} was not sought")))?;
        while records.len() < most {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => records.push(read(&message)?),
                Some(Err(error)) => return Err(failed(format!("partition {partition}: {error}"))),
                None if records.is_empty() => filled.notified().await,
                None => match *until {
                    Some(until) if timeout_at(until, filled.notified()).await.is_ok() => {}
                    _ => break,
                },
            }
        }
        Ok(())
    }
}

impl KafkaFeed {
    /// Connects; a member of the group makes the topic if it is missing.
    pub(crate) async fn connect(url: &str, membership: Membership) -> Result<Self, NotOpen> {
        let address = Address::parse(url).map_err(NotOpen::BadUrl)?;
        let topic = match membership {
            Membership::Group => topic::ensure(&address).await?,
            Membership::Alone => topic::find(&address).await?,
        };
        Self::start(&address, topic, membership).map_err(|error| NotOpen::BadUrl(error.to_string()))
    }

    pub(super) fn start(address: &Address, topic: Topic, membership: Membership) -> KafkaResult<Self> {
        let mut config = address.client();
        config
            // The client library reads nothing without a name for its group; this one has no members and stores nothing.
            .set("group.id", format!("{}-readers", address.group()))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where to read is said by seeking; an offset that the log does not have is an error, and never another place.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // While a broker collects records of other partitions, a partition that was just sought waits too.
            .set("fetch.wait.max.ms", COLLECT.as_millis().to_string())
            .set("fetch.min.bytes", "262144")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "262144")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", AHEAD_KIB);
        config.set("debug", identity::DEBUG).set_log_level(RDKafkaLogLevel::Debug);
        let mut client: Client = BaseConsumer::from_config_and_context(&config, Identity::new(&topic.name))?;
        let spoke = Arc::new(Notify::new());
        client.set_nonempty_callback({
            let spoke = Arc::clone(&spoke);
            move || spoke.notify_one()
        });
        let client = Arc::new(client);
        tokio::spawn({
            let client = Arc::downgrade(&client);
            async move {
                loop {
                    let _ = timeout(HEAR, spoke.notified()).await;
                    let Some(client) = client.upgrade() else { return };
                    Identity::hear(&client);
                }
            }
        });
        let group = (membership == Membership::Group).then(|| Group::join(address)).transpose()?;
        Ok(Self {
            lanes: (0..topic.partitions).map(|_| tokio::sync::Mutex::default()).collect(),
            dead: DeadLetters::new(address),
            topic,
            group,
            is_assigned: AtomicBool::new(false),
            client,
            fetching: Mutex::default(),
        })
    }

    fn lane(&self, partition: Partition) -> Result<&tokio::sync::Mutex<Lane>, StoreError> {
        let lane = self.lanes.get(usize::from(partition.0));
        lane.ok_or_else(|| StoreError::new(STORE, format!("there is no partition {partition}")))
    }

    /// Asks the client something that blocks.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client, &Topic) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (client, topic) = (Arc::clone(&self.client), self.topic.clone());
        let answer = tokio::task::spawn_blocking(move || question(&client, &topic)).await;
        answer.map_err(failed)?
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends fetching a partition, if it is fetched.
    fn stop_fetching(&self, fetching: &mut Fetching, partition: Partition) -> Result<(), StoreError> {
        if fetching.partitions.remove(&partition) {
            let this = self.at(partition, rdkafka::Offset::Invalid).map_err(failed)?;
            self.client.incremental_unassign(&this).map_err(failed)?;
        }
        Ok(())
    }

    fn start_fetching(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        let at = i64::try_from(at.0).map_err(failed)?;
        let this = self.at(partition, rdkafka::Offset::Offset(at)).map_err(failed)?;
        let mut fetching = self.fetching();
        if fetching.revoked.contains(&partition) {
            return Err(failed(format!("partition {partition} is another consumer's now")));
        }
        self.client.incremental_assign(&this).map_err(failed)?;
        fetching.partitions.insert(partition);
        Ok(())
    }

    /// Tells a lane's reader, once, that another log has taken the place of the one that it knows.
    fn recognise(&self, lane: &mut Lane) -> Result<Recognised, StoreError> {
        Identity::hear(&self.client);
        let Some(generation) = self.client.context().generation() else { return Ok(Recognised::Unknown) };
        if lane.generation == generation {
            return Ok(Recognised::Known);
        }
        *lane = Lane { generation, ..Lane::default() };
        Err(failed(format!("topic {} was deleted and made anew", self.topic.name)))
    }

    fn at(&self, partition: Partition, offset: rdkafka::Offset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic.name, i32::from(partition.0), offset)?;
        Ok(list)
    }
}

/// The time until the next batch after one with so many records.
fn pace(records: usize) -> Duration {
    u32::try_from(records).map_or(PACE_MOST, |records| PACE_MOST.min(PACE_EACH.saturating_mul(records)))
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, error)
}

#[async_trait]
impl Store for KafkaFeed {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.ask(|client, topic| {
            let metadata = client.fetch_metadata(Some(&topic.name), ANSWER).map_err(failed)?;
            let found = metadata.topics().first().ok_or_else(|| failed("Kafka says nothing of the topic"))?;
            topic.check(found)
        })
        .await
    }
}

#[async_trait]
impl VoteFeed for KafkaFeed {
    fn partitions(&self) -> u16 {
        self.topic.partitions
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        let Some(group) = &self.group else {
            if self.is_assigned.swap(true, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            return Ok(Assignment::Assigned((0..self.topic.partitions).map(Partition).collect()));
        };
        let change = group.change().await?;
        let mut fetching = self.fetching();
        match &change {
            Assignment::Assigned(partitions) => fetching.revoked.retain(|partition| !partitions.contains(partition)),
            Assignment::Revoked(partitions) => {
                fetching.revoked.extend(partitions);
                for &partition in partitions {
                    self.stop_fetching(&mut fetching, partition)?;
                }
            }
        }
        Ok(change)
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.ask(move |client, topic| {
            let bounds = client.fetch_watermarks(&topic.name, i32::from(partition.0), ANSWER);
            let (start, end) = bounds.map_err(failed)?;
            let offset = |offset: i64| u64::try_from(offset).map(Offset).map_err(failed);
            Ok(Bounds { start: offset(start)?, end: offset(end)? })
        })
        .await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        let mut lane = self.lane(partition)?.lock().await;
        self.stop_fetching(&mut self.fetching(), partition)?;
        // The old queue ends before there is a new one: they are two handles of one thing.
        *lane = Lane { generation: lane.generation, from: at, ..Lane::default() };
        self.recognise(&mut lane)?;
        let queue = self.client.split_partition_queue(&self.topic.name, i32::from(partition.0));
        let mut queue = queue.ok_or_else(|| failed(format!("partition {partition} has no queue")))?;
        let filled = Arc::new(Notify::new());
        queue.set_nonempty_callback({
            let filled = Arc::clone(&filled);
            move || filled.notify_one()
        });
        lane.queue = Some((queue, filled));
        self.start_fetching(partition, at)
    }

    async fn next_batch(&self, partition: Partition, most: usize) -> Result<Batch, StoreError> {
        let mut lane = self.lane(partition)?.lock().await;
        let known = lane.generation;
        let mut other_log = self.client.context().subscribe();
        tokio::select! {
            filled = lane.fill(partition, most) => filled?,
            _ = other_log.wait_for(|log| log.generation().is_some_and(|generation| generation != known)) => {}
        }
        // Not before the records are here: what is said of the log until now is about them.
        if self.recognise(&mut lane)? == Recognised::Unknown {
            return Err(failed("Kafka tells no topic ids: Kafka 3.1 or newer is needed"));
        }
        let records = std::mem::take(&mut lane.records);
        let to = records.last().map_or(lane.from, |record| record.offset.next());
        let batch = Batch { partition, from: lane.from, to, records };
        lane.from = to;
        lane.until = Some(Instant::now() + pace(batch.records.len()));
        Ok(batch)
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        if let Some(Err(error)) = self.group.as_ref().map(|group| group.commit(partition, position)) {
            tracing::debug!(%partition, %error, "a commit failed, it is for metrics only");
        }
        Ok(())
    }

    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError> {
        self.dead.bury(dead).await
    }

    async fn dead(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<DeadLetter>, StoreError> {
        self.dead.list(partition, from, to).await
    }
}

fn read(message: &BorrowedMessage<'_>) -> Result<Record, StoreError> {
    let offset = Offset(u64::try_from(message.offset()).map_err(failed)?);
    let accepted_at = UnixMillis(message.timestamp().to_millis().unwrap_or_default());
    let trace = header_of(message, "traceparent");
    let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    Ok(Record { offset, accepted_at, vote: record::decode(key, accepted_at, value, trace) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_slows_with_the_load_and_only_so_far() {
        assert_eq!(pace(0), Duration::ZERO);
        assert_eq!(pace(1), Duration::from_millis(5));
        assert_eq!(pace(10), Duration::from_millis(50));
        assert_eq!(pace(1_000), PACE_MOST);
        assert_eq!(pace(usize::MAX), PACE_MOST);
    }
}
