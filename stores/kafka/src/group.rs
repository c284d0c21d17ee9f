//! The membership of this process in the consumer group, which assigns the partitions.
//!
//! The member is a separate client, which only holds the membership and never fetches a record. Another client reads the
//! assigned partitions: it begins at the positions in the stores, not at the offsets that the group committed. A separate thread polls the member, so that a busy consumer keeps its partitions. A process that is killed
//! or frozen loses its partitions after [`SESSION_TIMEOUT`]. A process that shuts down leaves the group at once.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
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
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use votes::{Assignment, ConnectError, Offset, Partition};

use crate::{
    address::Address,
    client::{self, ClientStatus},
};

/// How a reader gets its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The reader is a member of the consumer group, which assigns the reader a share of the partitions.
    Group,
    /// The reader is no member of a group, and reads all partitions.
    Standalone,
}

/// The time without a heartbeat after which a consumer loses its partitions. It is the shortest time that brokers allow
/// by default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The time between two heartbeats. A member learns of a rebalance from the response to its next heartbeat. A partition
/// that moves to another consumer waits for two of these responses, and is not counted meanwhile.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// The longest time that the brokers may take to list the members of the group.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time that a rebalance waits until the consumer has finished the batches of the revoked partitions. After
/// that, two consumers count a partition for a moment, which is safe, but costs both of them a reconciliation.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest time of one poll. After each poll the thread checks whether it has to end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Returns whether the consumer group of the log has members.
pub async fn has_consumers(url: &str) -> Result<bool, ConnectError> {
    let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
    let query = move || {
        let list = |client: &BaseConsumer<_>| client.fetch_group_list(Some(&address.group_id()), REQUEST_TIMEOUT);
        let groups = client::query_brokers(&address, list)?;
        Ok(groups.groups().iter().any(|group| !group.members().is_empty()))
    };
    tokio::task::spawn_blocking(query).await.map_err(|error| ConnectError::Unreachable(error.to_string()))?
}

/// A membership in the consumer group. Dropping it leaves the group.
pub(super) struct Group {
    topic: String,
    member: Arc<BaseConsumer<RebalanceListener>>,
    thread: Option<JoinHandle<()>>,
}

impl Group {
    /// Joins the group. Sends each change of the assignment to `assignment_sender`. Cancels `brokers_lost` when the
    /// client has lost its brokers.
    pub(super) fn join(
        address: &Address,
        assignment_sender: mpsc::UnboundedSender<Assignment>,
        brokers_lost: CancellationToken,
    ) -> KafkaResult<Self> {
        let mut config = address.client();
        config
            .set("group.id", address.group_id())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
            .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL.as_millis().to_string())
            // The stored offsets of all partitions are committed together, once a second.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false");
        let listener = RebalanceListener {
            status: ClientStatus::default(),
            assignment_sender,
            owned: Mutex::new(Some(BTreeSet::new())),
            unreleased: Mutex::default(),
            released: Condvar::new(),
            is_leaving: AtomicBool::new(false),
        };
        let member: BaseConsumer<RebalanceListener> = BaseConsumer::from_config_and_context(&config, listener)?;
        member.subscribe(&[&address.topic])?;
        let member = Arc::new(member);
        let thread = thread::Builder::new().name("group".to_owned()).spawn({
            let member = Arc::clone(&member);
            move || {
                while !member.context().is_leaving.load(Ordering::Relaxed) {
                    // The rebalance callback runs inside this poll. No record arrives: all partitions are paused.
                    if let Some(Err(error)) = member.poll(POLL_INTERVAL) {
                        tracing::debug!(%error, "consumer group");
                    }
                    if member.context().status.has_lost_brokers() {
                        brokers_lost.cancel();
                    }
                }
            }
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let topic = address.topic.clone();
        Ok(Self { topic, member, thread: Some(thread) })
    }

    /// Records that the consumer no longer counts a revoked partition, so that the rebalance can go on.
    pub(super) fn release(&self, partition: Partition) {
        self.member.context().unreleased().remove(&partition);
        self.member.context().released.notify_all();
    }

    /// Reports to the log reader that all partitions are revoked. No change of the assignment is reported after that.
    pub(super) fn revoke_all(&self) {
        let owned = self.member.context().owned().take();
        self.member.context().emit(Assignment::Revoked(owned.into_iter().flatten().collect()));
    }

    /// Stores the position up to which a partition is counted. The client commits it within a second. Only the lag metrics of the group use this position.
    pub(super) fn commit(&self, partition: Partition, position: Offset) -> KafkaResult<()> {
        let offset = rdkafka::Offset::Offset(i64::try_from(position.0).unwrap_or(i64::MAX));
        let mut offsets = TopicPartitionList::with_capacity(1);
        offsets.add_partition_offset(&self.topic, i32::from(partition.0), offset)?;
        self.member.store_offsets(&offsets)
    }
}

impl Drop for Group {
    /// Leaves the group, so that the other members get the partitions without waiting for [`SESSION_TIMEOUT`]. Blocks
    /// until the thread has ended.
    fn drop(&mut self) {
        self.member.context().is_leaving.store(true, Ordering::Relaxed);
        // A rebalance may be waiting for partitions that are no longer counted.
        self.member.context().unreleased().clear();
        self.member.context().released.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the consumer group panicked");
        }
    }
}

/// The context of the member. Its callback runs when the group assigns or revokes partitions.
struct RebalanceListener {
    status: ClientStatus,
    assignment_sender: mpsc::UnboundedSender<Assignment>,
    /// The partitions of this member, or `None` after [`Group::revoke_all`].
    owned: Mutex<Option<BTreeSet<Partition>>>,
    /// The revoked partitions that the consumer still counts.
    unreleased: Mutex<BTreeSet<Partition>>,
    /// Notified when [`unreleased`](Self::unreleased) changes.
    released: Condvar,
    is_leaving: AtomicBool,
}

impl RebalanceListener {
    fn owned(&self) -> MutexGuard<'_, Option<BTreeSet<Partition>>> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreleased(&self) -> MutexGuard<'_, BTreeSet<Partition>> {
        self.unreleased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes revoked partitions from those of this member. Returns `false` if `revoke_all` has reported them already.
    fn disown(&self, revoked: &[Partition]) -> bool {
        let mut owned = self.owned();
        let Some(owned) = &mut *owned else { return false };
        owned.retain(|partition| !revoked.contains(partition));
        true
    }

    /// Reports that partitions are revoked, and waits until the consumer has finished their batches, for at most
    /// [`RELEASE_TIMEOUT`]. The member gives the partitions to the group only after this. Does not wait if the group has
    /// given the partitions to other consumers already, or if the member leaves after the consumer has ended.
    fn revoke(&self, partitions: Vec<Partition>, must_wait: bool) {
        *self.unreleased() = partitions.iter().copied().collect();
        self.emit(Assignment::Revoked(partitions));
        if !must_wait || self.is_leaving.load(Ordering::Relaxed) {
            return;
        }
        let is_counted = |unreleased: &mut BTreeSet<Partition>| !unreleased.is_empty();
        let waited = self.released.wait_timeout_while(self.unreleased(), RELEASE_TIMEOUT, is_counted);
        let (mut unreleased, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !unreleased.is_empty() {
            tracing::warn!(partitions = ?unreleased, "revoked partitions are still counted");
            unreleased.clear();
        }
    }

    fn emit(&self, change: Assignment) {
        let (Assignment::Assigned(partitions) | Assignment::Revoked(partitions)) = &change;
        if !partitions.is_empty() {
            // The receiver is gone if the log reader was dropped.
            let _ = self.assignment_sender.send(change);
        }
    }
}

impl ConsumerContext for RebalanceListener {
    fn rebalance(&self, member: &BaseConsumer<Self>, change: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let mut changed: Vec<Partition> = partitions
            .elements()
            .iter()
            .filter_map(|element| u16::try_from(element.partition()).ok().map(Partition))
            .collect();
        changed.sort_unstable();
        let is_assigned = change == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if !is_assigned && self.disown(&changed) {
            self.revoke(changed.clone(), !member.assignment_lost());
        }
        let outcome = if is_assigned {
            // Assign at the end of the log, and pause the partitions: this client must not fetch records.
            partitions
                .set_all_offsets(rdkafka::Offset::End)
                .and_then(|()| member.incremental_assign(partitions))
                .and_then(|()| member.pause(partitions))
        } else {
            member.incremental_unassign(partitions)
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "the client did not apply a change of its partitions");
        }
        if is_assigned && let Some(owned) = &mut *self.owned() {
            owned.extend(&changed);
            self.emit(Assignment::Assigned(changed));
        }
    }

    fn commit_callback(&self, outcome: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a commit for the lag metrics failed");
        }
    }
}

impl ClientContext for RebalanceListener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.status.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.status.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.status.stats(statistics);
    }
}
