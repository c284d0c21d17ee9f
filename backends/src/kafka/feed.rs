//! The consumers' end of the log.
//!
//! Reading is the same for everyone: a client without a group reads each partition from where its reader seeks, through a
//! queue of the partition's own. Counting consumers have a [`Group`] beside it that says which partitions are theirs.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use votes::{
    Assignment, Batch, Bounds, DeadLetter, Facts, Offset, Partition, Record, Store, StoreError, UnixMillis, VoteFeed,
};

use super::{
    STORE, Voice,
    address::Address,
    dead::DeadLetters,
    group::Group,
    topic::{self, Topic},
};
use crate::{
    open::{Membership, NotOpen},
    record,
};

/// How long a batch waits for more records after its first: long enough to fill under load, and a small part of the tenth of
/// a second in which a lone vote is counted.
const LINGER: Duration = Duration::from_millis(20);

/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_millis(1_500);

/// Records of one partition that are fetched ahead of counting, in KiB. It bounds memory, as all partitions may have them.
const AHEAD_KIB: &str = "1024";

/// How often the client's thread looks whether it has to end.
const POLL: Duration = Duration::from_millis(100);

impl ConsumerContext for Voice {}

type Client = BaseConsumer<Voice>;

/// A reader of a topic.
pub(crate) struct KafkaFeed {
    topic: Topic,
    group: Option<Group>,
    /// A reader without a group has all partitions from the start, and hears so once.
    is_assigned: AtomicBool,
    client: Arc<Client>,
    lanes: Vec<tokio::sync::Mutex<Lane>>,
    fetched: Mutex<BTreeSet<Partition>>,
    dead: DeadLetters,
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One partition's way from the client to batches.
#[derive(Default)]
struct Lane {
    queue: Option<(PartitionQueue<Voice>, Arc<Notify>)>,
    /// Where the next batch begins.
    from: Offset,
    /// Records of the next batch that have already been taken from the queue.
    records: Vec<Record>,
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

    fn start(address: &Address, topic: Topic, membership: Membership) -> KafkaResult<Self> {
        let mut config = address.client();
        config
            // The client library reads nothing without a name for its group; this one has no members and stores nothing.
            .set("group.id", format!("{}-readers", address.group()))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where to read is said by seeking; an offset that the log does not have is an error, and never another place.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            // While a broker waits for records of other partitions, a partition that was just sought waits too.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "262144")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", AHEAD_KIB);
        let client: Arc<Client> = Arc::new(BaseConsumer::from_config_and_context(&config, Voice)?);
        let is_ending = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("feed".to_owned()).spawn({
            let (client, is_ending) = (Arc::clone(&client), Arc::clone(&is_ending));
            move || {
                while !is_ending.load(Ordering::Relaxed) {
                    // Records come through the partitions' queues; here are only words about connections.
                    if let Some(Err(error)) = client.poll(POLL) {
                        tracing::debug!(%error, "feed");
                    }
                }
            }
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let group = (membership == Membership::Group).then(|| Group::join(address)).transpose()?;
        Ok(Self {
            lanes: (0..topic.partitions).map(|_| tokio::sync::Mutex::default()).collect(),
            dead: DeadLetters::new(address),
            topic,
            group,
            is_assigned: AtomicBool::new(false),
            client,
            fetched: Mutex::default(),
            is_ending,
            thread: Some(thread),
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

    /// Ends fetching a partition, if it is fetched.
    fn stop_fetching(&self, partition: Partition) -> Result<(), StoreError> {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.remove(&partition) {
            let this = self.at(partition, rdkafka::Offset::Invalid).map_err(failed)?;
            self.client.incremental_unassign(&this).map_err(failed)?;
        }
        Ok(())
    }

    fn start_fetching(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        let at = i64::try_from(at.0).map_err(failed)?;
        let this = self.at(partition, rdkafka::Offset::Offset(at)).map_err(failed)?;
        self.client.incremental_assign(&this).map_err(failed)?;
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).insert(partition);
        Ok(())
    }

    fn at(&self, partition: Partition, offset: rdkafka::Offset) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic.name, i32::from(partition.0), offset)?;
        Ok(list)
    }
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, error)
}

impl Drop for KafkaFeed {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the feed's thread failed");
        }
    }
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
        if let Assignment::Revoked(partitions) = &change {
            for &partition in partitions {
                self.stop_fetching(partition)?;
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
        self.stop_fetching(partition)?;
        // The old queue ends before there is a new one: they are two handles of one thing.
        *lane = Lane { queue: None, from: at, records: Vec::new() };
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
        let Lane { queue, from, records } = &mut *lane;
        let (queue, filled) = queue.as_ref().ok_or_else(|| failed(format!("partition {partition} was not sought")))?;
        let mut until = None;
        // Whatever was taken from the queue is kept in the lane, so that a caller who gives up has read nothing.
        while records.len() < most {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => records.push(read(&message)?),
                Some(Err(error)) => return Err(failed(format!("partition {partition}: {error}"))),
                None if records.is_empty() => filled.notified().await,
                None => {
                    let until = *until.get_or_insert_with(|| Instant::now() + LINGER);
                    if timeout_at(until, filled.notified()).await.is_err() {
                        break;
                    }
                }
            }
        }
        let records = std::mem::take(records);
        let to = records.last().map_or(*from, |record| record.offset.next());
        let batch = Batch { partition, from: *from, to, records };
        *from = to;
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
    let trace = message.headers().and_then(|headers| headers.iter().find(|header| header.key == "traceparent"));
    let trace = trace.and_then(|header| header.value).and_then(|value| std::str::from_utf8(value).ok());
    let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    Ok(Record { offset, accepted_at, vote: record::decode(key, accepted_at, value, trace) })
}
