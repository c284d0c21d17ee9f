//! Which partitions are whose: this process' membership in the consumers' group.
//!
//! It is a client of its own that never fetches a record, since where to read is not the group's to say. It is polled by a
//! thread, so that a consumer that is busy keeps its partitions; one that is stopped loses them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use tokio::sync::{Mutex, mpsc};
use votes::{Assignment, Offset, Partition, StoreError};

use super::{STORE, Voice, address::Address};
use crate::open::NotOpen;

/// After this much silence of a consumer its partitions go to others: the least that brokers allow by default.
const SESSION: Duration = Duration::from_secs(6);

/// How long the brokers may take to say who is in the group.
const ANSWER: Duration = Duration::from_secs(5);

/// How often the thread looks whether it has to end.
const POLL: Duration = Duration::from_millis(100);

/// Whether the group has members.
pub(crate) async fn has_consumers(url: &str) -> Result<bool, NotOpen> {
    let address = Address::parse(url).map_err(NotOpen::BadUrl)?;
    let ask = move || {
        let client: BaseConsumer<Voice> = BaseConsumer::from_config_and_context(&address.client(), Voice)
            .map_err(|error| NotOpen::BadUrl(error.to_string()))?;
        let groups = client.fetch_group_list(Some(&address.group()), ANSWER);
        let groups = groups.map_err(|error| NotOpen::Unreachable(error.to_string()))?;
        Ok(groups.groups().iter().any(|group| !group.members().is_empty()))
    };
    tokio::task::spawn_blocking(ask).await.map_err(|error| NotOpen::Unreachable(error.to_string()))?
}

/// A membership. Left when dropped.
pub(super) struct Group {
    topic: String,
    member: Arc<BaseConsumer<Changes>>,
    changes: Mutex<mpsc::UnboundedReceiver<Assignment>>,
    is_leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    pub(super) fn join(address: &Address) -> KafkaResult<Self> {
        let mut config = address.client();
        config
            .set("group.id", address.group())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .set("heartbeat.interval.ms", (SESSION / 4).as_millis().to_string())
            // What was stored is sent once a second, for all partitions together.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false");
        let (sender, changes) = mpsc::unbounded_channel();
        let member: BaseConsumer<Changes> = BaseConsumer::from_config_and_context(&config, Changes { sender })?;
        member.subscribe(&[&address.topic])?;
        let (member, is_leaving) = (Arc::new(member), Arc::new(AtomicBool::new(false)));
        let thread = thread::Builder::new().name("group".to_owned()).spawn({
            let (member, is_leaving) = (Arc::clone(&member), Arc::clone(&is_leaving));
            move || {
                while !is_leaving.load(Ordering::Relaxed) {
                    // Changes come through the context; nothing is fetched.
                    if let Some(Err(error)) = member.poll(POLL) {
                        tracing::debug!(%error, "group");
                    }
                }
            }
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let topic = address.topic.clone();
        Ok(Self { topic, member, changes: Mutex::new(changes), is_leaving, thread: Some(thread) })
    }

    /// Waits for the next change.
    pub(super) async fn change(&self) -> Result<Assignment, StoreError> {
        let change = self.changes.lock().await.recv().await;
        change.ok_or_else(|| StoreError::new(STORE, "the membership in the group has ended"))
    }

    /// Tells the group how far counting has come, for whoever watches its lag.
    pub(super) fn commit(&self, partition: Partition, position: Offset) -> KafkaResult<()> {
        let offset = rdkafka::Offset::Offset(i64::try_from(position.0).unwrap_or(i64::MAX));
        let mut offsets = TopicPartitionList::with_capacity(1);
        offsets.add_partition_offset(&self.topic, i32::from(partition.0), offset)?;
        self.member.store_offsets(&offsets)
    }
}

impl Drop for Group {
    /// Leaves the group, so that others need not wait for this member's time to run out.
    fn drop(&mut self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the group's thread failed");
        }
    }
}

/// Hears what the group decides.
struct Changes {
    sender: mpsc::UnboundedSender<Assignment>,
}

impl ConsumerContext for Changes {
    fn rebalance(&self, member: &BaseConsumer<Self>, change: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let mut theirs: Vec<Partition> = partitions
            .elements()
            .iter()
            .filter_map(|element| u16::try_from(element.partition()).ok().map(Partition))
            .collect();
        theirs.sort_unstable();
        let is_assigned = change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let outcome = if is_assigned {
            // At the end, and paused: this client must not fetch.
            partitions
                .set_all_offsets(rdkafka::Offset::End)
                .and_then(|()| member.incremental_assign(partitions))
                .and_then(|()| member.pause(partitions))
        } else {
            member.incremental_unassign(partitions)
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "a change of partitions failed");
        }
        if theirs.is_empty() {
            return;
        }
        let change = if is_assigned { Assignment::Assigned(theirs) } else { Assignment::Revoked(theirs) };
        // Nobody listens any more when the feed is gone.
        let _ = self.sender.send(change);
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a commit failed, it is for metrics only");
        }
    }
}

impl ClientContext for Changes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Voice.error(error, reason);
    }
}
