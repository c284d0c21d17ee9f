//! Which partitions are whose: this process' membership in the consumers' group.
//!
//! It is a client of its own that never fetches a record, since where to read is not the group's to say. It is polled by a
//! thread, so that a consumer that is busy keeps its partitions; one that is stopped loses them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientContext, Statistics, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};
use service::CancellationToken;
use tokio::sync::mpsc;
use votes::{Assignment, Offset, Partition};

use super::{Voice, address::Address};
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
        let groups = super::ask(&address, |client| client.fetch_group_list(Some(&address.group()), ANSWER))?;
        Ok(groups.groups().iter().any(|group| !group.members().is_empty()))
    };
    tokio::task::spawn_blocking(ask).await.map_err(|error| NotOpen::Unreachable(error.to_string()))?
}

/// A membership. Left when dropped.
pub(super) struct Group {
    topic: String,
    member: Arc<BaseConsumer<Changes>>,
    is_leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    /// Joins. Tells `decided` what the group decides, and ends `lost` when this client can't go on.
    pub(super) fn join(
        address: &Address,
        decided: mpsc::UnboundedSender<Assignment>,
        lost: CancellationToken,
    ) -> KafkaResult<Self> {
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
        let changes = Changes { voice: Voice::default(), decided, held: Mutex::new(Some(BTreeSet::new())) };
        let member: BaseConsumer<Changes> = BaseConsumer::from_config_and_context(&config, changes)?;
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
                    if member.context().voice.has_lost_brokers() {
                        lost.cancel();
                    }
                }
            }
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let topic = address.topic.clone();
        Ok(Self { topic, member, is_leaving, thread: Some(thread) })
    }

    /// Gives back all partitions, and tells of no change any more.
    pub(super) fn abandon(&self) {
        let held = self.member.context().held().take();
        self.member.context().tell(Assignment::Revoked(held.into_iter().flatten().collect()));
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
    voice: Voice,
    decided: mpsc::UnboundedSender<Assignment>,
    /// The partitions that are this member's; `None` once it is abandoned.
    held: Mutex<Option<BTreeSet<Partition>>>,
}

impl Changes {
    fn held(&self) -> MutexGuard<'_, Option<BTreeSet<Partition>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Assignment) {
        let (Assignment::Assigned(partitions) | Assignment::Revoked(partitions)) = &change;
        if !partitions.is_empty() {
            // Nobody listens any more when the feed is gone.
            let _ = self.decided.send(change);
        }
    }
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
        let mut held = self.held();
        let Some(held) = &mut *held else { return };
        if is_assigned {
            held.extend(&theirs);
            self.tell(Assignment::Assigned(theirs));
        } else {
            held.retain(|partition| !theirs.contains(partition));
            self.tell(Assignment::Revoked(theirs));
        }
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a commit failed, it is for metrics only");
        }
    }
}

impl ClientContext for Changes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.voice.stats(statistics);
    }
}
