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
use service::CancellationToken;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use votes::{
    Assignment, Batch, Bounds, DeadLetter, Facts, Offset, Partition, Record, Retention, Store, StoreError, UnixMillis,
    VoteFeed,
};

use super::{
    LOST, STORE,
    address::Address,
    dead::DeadLetters,
    expire::{self, Sizes},
    group::Group,
    header_of,
    identity::{self, Identity, Log},
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
    address: Address,
    topic: Topic,
    membership: Membership,
    /// A reader without a group has all partitions from the start, and hears so once.
    is_assigned: AtomicBool,
    /// What is known of the log.
    log: watch::Sender<Log>,
    /// What the group decided and nobody has heard yet.
    changes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Assignment>>,
    decided: mpsc::UnboundedSender<Assignment>,
    clients: Mutex<Arc<Clients>>,
    lanes: Vec<tokio::sync::Mutex<Lane>>,
    dead: DeadLetters,
    sizes: Sizes,
}

/// The library's clients of a feed. All are replaced when one has lost its brokers.
pub(super) struct Clients {
    pub(super) reader: Arc<Reader>,
    group: Option<Group>,
}

/// The client that reads.
pub(super) struct Reader {
    client: Arc<Client>,
    fetching: Mutex<Fetching>,
    /// Ended when the clients have lost their brokers.
    pub(super) lost: CancellationToken,
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
    /// Whose queue it is.
    reader: Option<Arc<Reader>>,
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
    async fn fill(&mut self, partition: Partition, most: usize, sizes: &Sizes) -> Result<(), StoreError> {
        let Self { queue, records, until, .. } = self;
        let (queue, filled) = queue.as_ref().ok_or_else(|| not_sought(partition))?;
        while records.len() < most {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    sizes.note(&message);
                    records.push(read(&message)?);
                }
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
        let log = watch::Sender::default();
        let (decided, changes) = mpsc::unbounded_channel();
        let clients = Clients::start(address, &topic, &log, membership, &decided)?;
        Ok(Self {
            lanes: (0..topic.partitions).map(|_| tokio::sync::Mutex::default()).collect(),
            dead: DeadLetters::new(address),
            sizes: Sizes::default(),
            address: address.clone(),
            topic,
            membership,
            is_assigned: AtomicBool::new(false),
            log,
            changes: tokio::sync::Mutex::new(changes),
            decided,
            clients: Mutex::new(Arc::new(clients)),
        })
    }

    /// The clients; others, if they have lost the brokers.
    pub(super) fn clients(&self) -> Result<Arc<Clients>, StoreError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.reader.lost.is_cancelled() {
            tracing::warn!(reason = LOST, "the feed's clients were replaced");
            let others = Clients::start(&self.address, &self.topic, &self.log, self.membership, &self.decided);
            let lost = std::mem::replace(&mut *clients, Arc::new(others.map_err(failed)?));
            if let Some(group) = &lost.group {
                group.abandon();
            }
            // Its end may take a while.
            tokio::task::spawn_blocking(move || drop(lost));
        }
        Ok(Arc::clone(&clients))
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
        let (clients, topic) = (self.clients()?, self.topic.clone());
        let answer = tokio::task::spawn_blocking(move || question(&clients.reader.client, &topic)).await;
        answer.map_err(failed)?
    }

    /// Tells a lane's reader, once, that another log has taken the place of the one that it knows.
    fn recognise(&self, reader: &Reader, lane: &mut Lane) -> Result<Recognised, StoreError> {
        Identity::hear(&reader.client);
        let Some(generation) = reader.client.context().generation() else { return Ok(Recognised::Unknown) };
        if lane.generation == generation {
            return Ok(Recognised::Known);
        }
        *lane = Lane { generation, ..Lane::default() };
        Err(failed(format!("topic {} was deleted and made anew", self.topic.name)))
    }

    /// A partition, as the client library wants it.
    fn at(&self, partition: Partition, offset: rdkafka::Offset) -> Result<TopicPartitionList, StoreError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic.name, i32::from(partition.0), offset).map_err(failed)?;
        Ok(list)
    }
}

impl Clients {
    fn start(
        address: &Address,
        topic: &Topic,
        log: &watch::Sender<Log>,
        membership: Membership,
        decided: &mpsc::UnboundedSender<Assignment>,
    ) -> KafkaResult<Self> {
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
        let mut client: Client =
            BaseConsumer::from_config_and_context(&config, Identity::new(&topic.name, log.clone()))?;
        let spoke = Arc::new(Notify::new());
        client.set_nonempty_callback({
            let spoke = Arc::clone(&spoke);
            move || spoke.notify_one()
        });
        let (client, lost) = (Arc::new(client), CancellationToken::new());
        tokio::spawn({
            let (client, lost) = (Arc::downgrade(&client), lost.clone());
            async move {
                loop {
                    let _ = timeout(HEAR, spoke.notified()).await;
                    let Some(client) = client.upgrade() else { return };
                    Identity::hear(&client);
                    if client.context().voice.has_lost_brokers() {
                        lost.cancel();
                    }
                }
            }
        });
        let group = match membership {
            Membership::Group => Some(Group::join(address, decided.clone(), lost.clone())?),
            Membership::Alone => None,
        };
        Ok(Self { reader: Arc::new(Reader { client, fetching: Mutex::default(), lost }), group })
    }
}

impl Reader {
    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends fetching a partition, if it is fetched. `this` is the partition as the library wants it.
    fn stop_fetching(
        &self,
        fetching: &mut Fetching,
        partition: Partition,
        this: &TopicPartitionList,
    ) -> Result<(), StoreError> {
        if fetching.partitions.remove(&partition) {
            self.client.incremental_unassign(this).map_err(failed)?;
        }
        Ok(())
    }

    fn start_fetching(&self, partition: Partition, this: &TopicPartitionList) -> Result<(), StoreError> {
        let mut fetching = self.fetching();
        if fetching.revoked.contains(&partition) {
            return Err(failed(format!("partition {partition} is another consumer's now")));
        }
        self.client.incremental_assign(this).map_err(failed)?;
        fetching.partitions.insert(partition);
        Ok(())
    }
}

/// The time until the next batch after one with so many records.
fn pace(records: usize) -> Duration {
    u32::try_from(records).map_or(PACE_MOST, |records| PACE_MOST.min(PACE_EACH.saturating_mul(records)))
}

fn not_sought(partition: Partition) -> StoreError {
    failed(format!("partition {partition} was not sought"))
}

pub(super) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, error)
}

#[async_trait]
impl Store for KafkaFeed {
    async fn check(&self) -> Result<Facts, StoreError> {
        self.ask(|client, topic| topic.check(&client.fetch_metadata(Some(&topic.name), ANSWER).map_err(failed)?)).await
    }
}

#[async_trait]
impl VoteFeed for KafkaFeed {
    fn partitions(&self) -> u16 {
        self.topic.partitions
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        if self.membership == Membership::Alone {
            if self.is_assigned.swap(true, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            return Ok(Assignment::Assigned((0..self.topic.partitions).map(Partition).collect()));
        }
        let mut changes = self.changes.lock().await;
        let (clients, change) = loop {
            let clients = self.clients()?;
            tokio::select! {
                biased;
                Some(change) = changes.recv() => break (clients, change),
                () = clients.reader.lost.cancelled() => {}
            }
        };
        let mut fetching = clients.reader.fetching();
        match &change {
            Assignment::Assigned(partitions) => fetching.revoked.retain(|partition| !partitions.contains(partition)),
            Assignment::Revoked(partitions) => {
                fetching.revoked.extend(partitions);
                for &partition in partitions {
                    let this = self.at(partition, rdkafka::Offset::Invalid)?;
                    clients.reader.stop_fetching(&mut fetching, partition, &this)?;
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
        let reader = Arc::clone(&self.clients()?.reader);
        let place = rdkafka::Offset::Offset(i64::try_from(at.0).map_err(failed)?);
        let this = self.at(partition, place)?;
        reader.stop_fetching(&mut reader.fetching(), partition, &this)?;
        // The old queue ends before there is a new one: they are two handles of one thing.
        *lane = Lane { generation: lane.generation, from: at, ..Lane::default() };
        self.recognise(&reader, &mut lane)?;
        let queue = reader.client.split_partition_queue(&self.topic.name, i32::from(partition.0));
        let mut queue = queue.ok_or_else(|| failed(format!("partition {partition} has no queue")))?;
        let filled = Arc::new(Notify::new());
        queue.set_nonempty_callback({
            let filled = Arc::clone(&filled);
            move || filled.notify_one()
        });
        lane.queue = Some((queue, filled));
        lane.reader = Some(Arc::clone(&reader));
        reader.start_fetching(partition, &this)
    }

    async fn next_batch(&self, partition: Partition, most: usize) -> Result<Batch, StoreError> {
        let mut lane = self.lane(partition)?.lock().await;
        let reader = lane.reader.clone().ok_or_else(|| not_sought(partition))?;
        let known = lane.generation;
        let mut other_log = self.log.subscribe();
        tokio::select! {
            filled = lane.fill(partition, most, &self.sizes) => filled?,
            () = reader.lost.cancelled() => return Err(failed(LOST)),
            _ = other_log.wait_for(|log| log.generation().is_some_and(|generation| generation != known)) => {}
        }
        // Not before the records are here: what is said of the log until now is about them.
        if self.recognise(&reader, &mut lane)? == Recognised::Unknown {
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
        if let Some(Err(error)) = self.clients()?.group.as_ref().map(|group| group.commit(partition, position)) {
            tracing::debug!(%partition, %error, "a commit failed, it is for metrics only");
        }
        Ok(())
    }

    async fn expire(&self, partition: Partition, retention: Retention, counted: Offset) -> Result<u64, StoreError> {
        let bounds = self.bounds(partition).await?;
        let to = match retention {
            Retention::Age(age) => {
                let since = Retention::since(age);
                let first = self.ask(move |client, topic| expire::first_since(client, &topic.name, partition, since));
                first.await?.unwrap_or(bounds.end)
            }
            Retention::Bytes(bytes) => expire::first_kept(&self.sizes, bounds, bytes, self.topic.partitions),
        };
        let to = to.min(counted).min(bounds.end);
        if to <= bounds.start {
            return Ok(0);
        }
        expire::delete(&self.address, partition, to).await?;
        Ok(to.0 - bounds.start.0)
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
