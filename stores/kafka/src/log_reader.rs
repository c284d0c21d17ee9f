//! The consumers' end of the vote log.
//!
//! A log reader has a [`Fetcher`], whose client fetches the records of all partitions. Each partition has its own
//! queue, and is read from the offset of its last seek. This client joins no consumer group. The log reader of a
//! consumer also has a [`Group`](crate::group::Group): a second client, which joins the consumer group and receives the
//! assignment of partitions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{TopicPartitionList, consumer::Consumer, error::KafkaResult};
use tokio::{
    sync::{Mutex, Notify, mpsc, watch},
    task::spawn_blocking,
    time::Instant,
};
use votes::{
    Assignment, Batch, Bounds, ConnectError, DeadLetter, DeadLetterReader, HealthDetails, LogReader, Offset, Partition,
    Retention, Store, StoreError, UnixMillis,
};

use crate::{
    address::Address,
    admin::Admin,
    client::{BROKERS_LOST, failed},
    dead_letters::DeadLetters,
    expire::{self, RecordSizeStats},
    fetcher::{Client, Clients, Fetcher, fetch_bounds},
    group::Membership,
    partition_reader::{PartitionReader, batch_linger, no_position},
    settings::SettingsWatcher,
    topic::{self, Topic},
    topic_id::{LogIdentity, TopicIdWatcher},
};

/// The longest time that a broker may take for a request for metadata or offsets.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A reader of a topic.
pub struct KafkaLogReader {
    address: Address,
    topic: Topic,
    membership: Membership,
    /// Whether a standalone reader has returned its only assignment: all partitions.
    has_returned_assignment: AtomicBool,
    /// The identity of the log that the clients have found.
    identity: watch::Sender<LogIdentity>,
    /// The changes of the assignment that [`LogReader::assignment`] has not returned yet.
    assignment_receiver: Mutex<mpsc::UnboundedReceiver<Assignment>>,
    assignment_sender: mpsc::UnboundedSender<Assignment>,
    clients: Mutex<Arc<Clients>>,
    admin: Arc<Admin>,
    pub(super) settings: Arc<SettingsWatcher>,
    partition_readers: Vec<Mutex<PartitionReader>>,
    dead_letters: DeadLetters,
    sizes: Arc<RecordSizeStats>,
}

/// Whether the client has found the topic id of the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TopicId {
    Known,
    /// The client has found no id yet.
    Unknown,
}

impl KafkaLogReader {
    /// Connects. If the topic is missing, a member of the group creates it, and a standalone reader fails.
    pub async fn connect(url: &str, membership: Membership) -> Result<Self, ConnectError> {
        let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
        let topic = match membership {
            Membership::Group => topic::ensure(&address).await?,
            Membership::Standalone => topic::validate_existing(&address).await?,
        };
        let started = spawn_blocking(move || Self::start(&address, topic, membership)).await;
        let started = started.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        started.map_err(|error| ConnectError::BadUrl(error.to_string()))
    }

    /// Starts the clients. Blocks. The caller is a task or a thread for blocking calls.
    pub(super) fn start(address: &Address, topic: Topic, membership: Membership) -> KafkaResult<Self> {
        let identity = watch::Sender::default();
        let (assignment_sender, assignment_receiver) = mpsc::unbounded_channel();
        let clients = Clients::start(address, &topic, &identity, membership, &assignment_sender)?;
        let admin = Arc::new(Admin::new(address));
        Ok(Self {
            partition_readers: (0..topic.partitions).map(|_| Mutex::default()).collect(),
            settings: SettingsWatcher::start(address, &topic, Arc::clone(&admin)),
            admin,
            dead_letters: DeadLetters::new(address),
            sizes: Arc::default(),
            address: address.clone(),
            topic,
            membership,
            has_returned_assignment: AtomicBool::new(false),
            identity,
            assignment_receiver: Mutex::new(assignment_receiver),
            assignment_sender,
            clients: Mutex::new(Arc::new(clients)),
        })
    }

    /// Returns the clients. Replaces them first if they have lost their brokers.
    pub(super) async fn clients(&self) -> Result<Arc<Clients>, StoreError> {
        let mut clients = self.clients.lock().await;
        if clients.fetcher.brokers_lost.is_cancelled() {
            tracing::warn!(reason = BROKERS_LOST, "replacing the clients of the vote log reader");
            let (address, topic, identity) = (self.address.clone(), self.topic.clone(), self.identity.clone());
            let (membership, assignment_sender) = (self.membership, self.assignment_sender.clone());
            // Starting clients starts threads and opens files.
            let start = move || Clients::start(&address, &topic, &identity, membership, &assignment_sender);
            let new = spawn_blocking(start).await.map_err(failed)?.map_err(failed)?;
            let replaced = std::mem::replace(&mut *clients, Arc::new(new));
            if let Some(group) = &replaced.group {
                group.revoke_all();
            }
            // Dropping clients waits for their threads to end, which may take seconds.
            spawn_blocking(move || drop(replaced));
        }
        Ok(Arc::clone(&clients))
    }

    fn partition_reader(&self, partition: Partition) -> Result<&Mutex<PartitionReader>, StoreError> {
        let partition_reader = self.partition_readers.get(usize::from(partition.0));
        partition_reader.ok_or_else(|| self.no_partition(partition))
    }

    /// Returns the error for a partition that the log does not have. The group assigns such partitions if partitions were
    /// added to the topic.
    fn no_partition(&self, partition: Partition) -> StoreError {
        let Topic { name, partitions, .. } = &self.topic;
        failed(format!(
            "the log has {partitions} partitions, and partition {partition} was added to topic {name} later. Votes are still \
             counted: producers use only the first {partitions} partitions. But the programs refuse this topic at their next \
             start; move to another topic, with an empty ledger and empty tallies, before you restart them"
        ))
    }

    /// Runs a blocking request of the client on a thread for blocking calls.
    async fn request<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Client, &Topic) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (clients, topic) = (self.clients().await?, self.topic.clone());
        let outcome = spawn_blocking(move || request(&clients.fetcher.client, &topic)).await;
        outcome.map_err(failed)?
    }

    /// Checks that the topic is still the one that the caller has read. Otherwise resets the partition's reader, which
    /// then has no position.
    ///
    /// # Errors
    /// If the topic was deleted and created again: one error for each partition.
    fn verify_log(&self, fetcher: &Fetcher, partition_reader: &mut PartitionReader) -> Result<TopicId, StoreError> {
        TopicIdWatcher::poll_events(&fetcher.client);
        let Some(topic_generation) = fetcher.client.context().generation() else { return Ok(TopicId::Unknown) };
        if partition_reader.topic_generation == topic_generation {
            return Ok(TopicId::Known);
        }
        *partition_reader = PartitionReader { topic_generation, ..PartitionReader::default() };
        Err(failed(format!("topic {} was deleted and created again", self.topic.name)))
    }

    /// Returns one partition with an offset, as the list that rdkafka requires.
    fn partition_list(&self, partition: Partition, offset: rdkafka::Offset) -> Result<TopicPartitionList, StoreError> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic.name, i32::from(partition.0), offset).map_err(failed)?;
        Ok(list)
    }
}

#[async_trait]
impl Store for KafkaLogReader {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let details = self.request(|client, topic| {
            let metadata = client.fetch_metadata(Some(&topic.name), REQUEST_TIMEOUT).map_err(|error| {
                // The events have the cause of a failed connection.
                TopicIdWatcher::poll_events(client);
                client.context().status.explain(&error)
            });
            topic.check(&metadata?)
        });
        let details = details.await?;
        match self.settings.problem() {
            Some(problem) => Err(failed(problem.text)),
            None => Ok(details),
        }
    }
}

#[async_trait]
impl LogReader for KafkaLogReader {
    fn partitions(&self) -> u16 {
        self.topic.partitions
    }

    async fn assignment(&self) -> Result<Assignment, StoreError> {
        if self.membership == Membership::Standalone {
            if self.has_returned_assignment.swap(true, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            return Ok(Assignment::Assigned((0..self.topic.partitions).map(Partition).collect()));
        }
        let mut assignment_receiver = self.assignment_receiver.lock().await;
        let (clients, assignment) = loop {
            let clients = self.clients().await?;
            tokio::select! {
                biased;
                Some(assignment) = assignment_receiver.recv() => break (clients, assignment),
                () = clients.fetcher.brokers_lost.cancelled() => {}
            }
        };
        let mut state = clients.fetcher.fetch_state();
        match &assignment {
            Assignment::Assigned(partitions) => state.revoked.retain(|partition| !partitions.contains(partition)),
            Assignment::Revoked(partitions) => {
                state.revoked.extend(partitions);
                for &partition in partitions {
                    let partition_list = self.partition_list(partition, rdkafka::Offset::Invalid)?;
                    clients.fetcher.stop_fetching(&mut state, partition, &partition_list)?;
                }
            }
        }
        Ok(assignment)
    }

    async fn release(&self, partition: Partition) {
        // Not `clients()`, which may create new clients: they have revoked no partition.
        let clients = Arc::clone(&*self.clients.lock().await);
        if let Some(group) = &clients.group {
            group.release(partition);
        }
    }

    async fn bounds(&self, partition: Partition) -> Result<Bounds, StoreError> {
        self.partition_reader(partition)?;
        self.request(move |client, topic| fetch_bounds(client, &topic.name, partition, REQUEST_TIMEOUT)).await
    }

    async fn seek(&self, partition: Partition, at: Offset) -> Result<(), StoreError> {
        let mut partition_reader = self.partition_reader(partition)?.lock().await;
        let fetcher = Arc::clone(&self.clients().await?.fetcher);
        let offset = rdkafka::Offset::Offset(i64::try_from(at.0).map_err(failed)?);
        let partition_list = self.partition_list(partition, offset)?;
        fetcher.stop_fetching(&mut fetcher.fetch_state(), partition, &partition_list)?;
        // Drop the old queue before creating the new one: both are handles of the same queue of librdkafka.
        *partition_reader = PartitionReader {
            topic_generation: partition_reader.topic_generation,
            from: at,
            ..PartitionReader::default()
        };
        self.verify_log(&fetcher, &mut partition_reader)?;
        let queue = fetcher.client.split_partition_queue(&self.topic.name, i32::from(partition.0));
        let mut queue = queue.ok_or_else(|| failed(format!("partition {partition} has no queue")))?;
        let not_empty = Arc::new(Notify::new());
        queue.set_nonempty_callback({
            let not_empty = Arc::clone(&not_empty);
            move || not_empty.notify_one()
        });
        partition_reader.queue = Some((queue, not_empty));
        partition_reader.fetcher = Some(Arc::clone(&fetcher));
        fetcher.start_fetching(partition, &partition_list)
    }

    async fn next_batch(&self, partition: Partition, max_records: usize) -> Result<Batch, StoreError> {
        let mut partition_reader = self.partition_reader(partition)?.lock().await;
        let fetcher = partition_reader.fetcher.clone().ok_or_else(|| no_position(partition))?;
        let known = partition_reader.topic_generation;
        let mut identity = self.identity.subscribe();
        tokio::select! {
            read = partition_reader.read_batch(partition, max_records, (&fetcher.client, &self.address), &self.sizes) => read?,
            () = fetcher.brokers_lost.cancelled() => return Err(failed(BROKERS_LOST)),
            _ = identity.wait_for(|log| log.generation().is_some_and(|generation| generation != known)) => {}
        }
        // Verify the log only after the records have arrived: the events until then show which topic they are from.
        if self.verify_log(&fetcher, &mut partition_reader)? == TopicId::Unknown {
            return Err(failed("the brokers report no topic ids: Kafka 3.1 or newer is required"));
        }
        let records = std::mem::take(&mut partition_reader.records);
        let empty_until = partition_reader.empty_until.take().unwrap_or(partition_reader.from);
        let to = records.last().map_or(empty_until, |record| record.offset.next());
        let batch = Batch { partition, from: partition_reader.from, to, records };
        partition_reader.from = to;
        partition_reader.linger_until = Some(Instant::now() + batch_linger(batch.records.len()));
        Ok(batch)
    }

    async fn commit(&self, partition: Partition, position: Offset) -> Result<(), StoreError> {
        if let Some(Err(error)) = self.clients().await?.group.as_ref().map(|group| group.commit(partition, position)) {
            tracing::debug!(%partition, %error, "a commit for the lag metrics failed");
        }
        Ok(())
    }

    /// Deletes the records of all partitions with one request. If a partition fails, the records of the others are
    /// deleted all the same, and the error is returned after that.
    async fn expire(
        &self,
        counted: &[(Partition, Offset)],
        retention: Retention,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        let (counted, sizes) = (counted.to_vec(), Arc::clone(&self.sizes));
        let found = self.request(move |client, topic| {
            let (mut oldest, first_error) = expire::find_counted(client, &topic.name, &counted);
            match retention {
                Retention::Age(age) => expire::retain_since(client, &topic.name, now.before(age), &mut oldest)?,
                Retention::Bytes(bytes) => expire::retain_bytes(&sizes, bytes, topic.partitions, &mut oldest),
            }
            Ok((oldest, first_error))
        });
        let (oldest, first_error) = found.await?;
        let deleted = expire::delete_records(&self.admin, &self.topic.name, oldest).await?;
        first_error.map_or(Ok(deleted), Err)
    }

    async fn send_to_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
        self.dead_letters.send(dead_letters).await
    }

    async fn dead_letters(&self, partition: Partition) -> Result<Box<dyn DeadLetterReader>, StoreError> {
        Ok(Box::new(self.dead_letters.open(partition).await?))
    }
}
