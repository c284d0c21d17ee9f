//! The client that fetches records, and which partitions it fetches.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use votes::{Assignment, Bounds, Offset, Partition, StoreError};

use crate::{
    address::Address,
    client::failed,
    group::{Group, Membership},
    topic::Topic,
    topic_id::{self, LogIdentity, TopicIdWatcher},
};

/// The longest time that a broker collects records of all partitions for one response. Under load, a response for each
/// record would cost more than the counting. A vote that arrives alone is delayed by this time.
const FETCH_MAX_WAIT: Duration = Duration::from_millis(40);

/// The size of the records of one partition that are fetched before counting needs them, in KiB. It bounds the memory
/// for each partition.
const PREFETCH_KIB: &str = "1024";

/// The longest time between two polls of the client's events. An event causes an earlier poll.
const EVENT_POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) type Client = BaseConsumer<TopicIdWatcher>;

/// The clients of a log reader. When one of them has lost its brokers, all are replaced.
pub(crate) struct Clients {
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) group: Option<Group>,
}

/// The client that fetches records.
pub(crate) struct Fetcher {
    pub(crate) client: Arc<Client>,
    fetch_state: Mutex<FetchState>,
    /// It is cancelled when one of the clients has lost its brokers.
    pub(crate) brokers_lost: CancellationToken,
}

/// Which partitions the client fetches.
#[derive(Default)]
pub(crate) struct FetchState {
    pub(crate) partitions: BTreeSet<Partition>,
    /// The partitions that the group has revoked. A task that still counts such a partition must not fetch it again.
    pub(crate) revoked: BTreeSet<Partition>,
}

impl Clients {
    pub(crate) fn start(
        address: &Address,
        topic: &Topic,
        identity: &watch::Sender<LogIdentity>,
        membership: Membership,
        assignment_sender: &mpsc::UnboundedSender<Assignment>,
    ) -> KafkaResult<Self> {
        let mut config = address.reader();
        config
            // The end of a partition starts the check for offsets without a record.
            .set("enable.partition.eof", "true")
            // This time also delays the first records of a partition after a seek.
            .set("fetch.wait.max.ms", FETCH_MAX_WAIT.as_millis().to_string())
            .set("fetch.min.bytes", "262144")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "262144")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", PREFETCH_KIB);
        config.set("debug", topic_id::DEBUG_CONTEXT).set_log_level(RDKafkaLogLevel::Debug);
        let mut client: Client =
            BaseConsumer::from_config_and_context(&config, TopicIdWatcher::new(&topic.name, identity.clone()))?;
        let has_events = Arc::new(Notify::new());
        client.set_nonempty_callback({
            let has_events = Arc::clone(&has_events);
            move || has_events.notify_one()
        });
        let (client, brokers_lost) = (Arc::new(client), CancellationToken::new());
        tokio::spawn({
            let (client, brokers_lost) = (Arc::downgrade(&client), brokers_lost.clone());
            async move {
                loop {
                    let _ = timeout(EVENT_POLL_INTERVAL, has_events.notified()).await;
                    let Some(client) = client.upgrade() else { return };
                    TopicIdWatcher::poll_events(&client);
                    if client.context().status.has_lost_brokers() {
                        brokers_lost.cancel();
                    }
                }
            }
        });
        let group = match membership {
            Membership::Group => Some(Group::join(address, assignment_sender.clone(), brokers_lost.clone())?),
            Membership::Standalone => None,
        };
        Ok(Self { fetcher: Arc::new(Fetcher { client, fetch_state: Mutex::default(), brokers_lost }), group })
    }
}

/// Returns the offsets that the brokers have of a partition. Blocks.
pub(crate) fn fetch_bounds(
    client: &Client,
    topic: &str,
    partition: Partition,
    timeout: Duration,
) -> Result<Bounds, StoreError> {
    let bounds = client.fetch_watermarks(topic, i32::from(partition.0), timeout);
    let (start, end) = bounds.map_err(|error| failed(format!("partition {partition}: {error}")))?;
    let offset = |offset: i64| u64::try_from(offset).map(Offset).map_err(failed);
    Ok(Bounds { start: offset(start)?, end: offset(end)? })
}

impl Fetcher {
    pub(crate) fn fetch_state(&self) -> MutexGuard<'_, FetchState> {
        self.fetch_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops fetching a partition, if it is fetched. `partition_list` contains only that partition.
    pub(crate) fn stop_fetching(
        &self,
        state: &mut FetchState,
        partition: Partition,
        partition_list: &TopicPartitionList,
    ) -> Result<(), StoreError> {
        if state.partitions.remove(&partition) {
            self.client.incremental_unassign(partition_list).map_err(failed)?;
        }
        Ok(())
    }

    /// Starts fetching a partition at the offset in `partition_list`.
    ///
    /// # Errors
    /// If the group has revoked the partition.
    pub(crate) fn start_fetching(
        &self,
        partition: Partition,
        partition_list: &TopicPartitionList,
    ) -> Result<(), StoreError> {
        let mut state = self.fetch_state();
        if state.revoked.contains(&partition) {
            return Err(failed(format!("partition {partition} was revoked from this consumer")));
        }
        self.client.incremental_assign(partition_list).map_err(failed)?;
        state.partitions.insert(partition);
        Ok(())
    }
}
