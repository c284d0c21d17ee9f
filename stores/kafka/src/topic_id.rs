//! The identity of the log: a topic that is deleted and created again has the same name and another topic id.
//!
//! Brokers return records by topic id (Kafka 3.1 and newer), so records that were fetched with one id belong to one
//! log. But when librdkafka receives another id, it continues at the same offset of the *other* log without an error
//! (`rd_kafka_topic_metadata_update`). Before librdkafka uses the new id, it writes a line to its debug log. So if a
//! reader has polled all log lines and found no such line, all its records belong to the log that it knows.
//!
//! Tests with a real Kafka check that librdkafka still writes the line, also for the first id. A reader that has found
//! no id yet returns an error instead of records.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};
use tokio::sync::watch;

use crate::client::ClientStatus;

/// The debug context of librdkafka that contains the line about a new topic id.
pub(super) const DEBUG_CONTEXT: &str = "topic";

/// The context of a reading client. It finds the topic id in the debug log of librdkafka.
pub(super) struct TopicIdWatcher {
    pub(super) status: ClientStatus,
    topic: String,
    /// The last identity that this client, or an earlier client of the same log reader, has found.
    identity: watch::Sender<LogIdentity>,
    /// Whether this client has found an id.
    has_found_id: AtomicBool,
    /// The number of events that were handled, of all kinds.
    events: AtomicU64,
    poll_lock: Mutex<()>,
}

/// The identity of the log behind the topic's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogIdentity {
    id: Option<String>,
    /// The number of changes of the id.
    generation: u64,
}

impl LogIdentity {
    /// Returns the number of changes of the topic id, or `None` until an id was found.
    pub(super) fn generation(&self) -> Option<u64> {
        self.id.as_ref().map(|_| self.generation)
    }
}

impl TopicIdWatcher {
    /// Creates the context of a client of a topic. `identity` contains the identity that earlier clients have found.
    pub(super) fn new(topic: &str, identity: watch::Sender<LogIdentity>) -> Self {
        Self {
            status: ClientStatus::default(),
            topic: topic.to_owned(),
            identity,
            has_found_id: AtomicBool::new(false),
            events: AtomicU64::new(0),
            poll_lock: Mutex::default(),
        }
    }

    /// Returns the generation of the log, or `None` until this client has found a topic id.
    pub(super) fn generation(&self) -> Option<u64> {
        self.identity.borrow().generation().filter(|_| self.has_found_id.load(Ordering::Relaxed))
    }

    /// Polls the events of the client until there are none. When this returns, every event that was there before the
    /// call was handled.
    pub(super) fn poll_events(client: &BaseConsumer<Self>) {
        let this = client.context();
        // Without the lock, this thread could return while another one still handles an event.
        let _lock = this.poll_lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let before = this.events.load(Ordering::Relaxed);
            // Only events arrive here. Records arrive on the queues of the partitions.
            match client.poll(Duration::ZERO) {
                Some(Err(error)) => tracing::debug!(%error, "vote log reader"),
                Some(Ok(message)) => drop(message),
                None if this.events.load(Ordering::Relaxed) == before => return,
                None => {}
            }
        }
    }

    /// Stores the topic id that a line of librdkafka's debug log contains. Ignores other lines.
    fn observe_line(&self, line: &str) {
        let Some((topic, id)) = parse_topic_id_change(line) else { return };
        if topic != self.topic {
            return;
        }
        self.has_found_id.store(true, Ordering::Relaxed);
        self.identity.send_if_modified(|identity| match &identity.id {
            Some(known) if known == id => false,
            known => {
                if let Some(known) = known {
                    identity.generation += 1;
                    tracing::error!(topic, before = known, now = id, "the topic was deleted and created again");
                }
                identity.id = Some(id.to_owned());
                true
            }
        });
    }
}

/// Returns the topic and its new id from a line such as
/// `[thrd:main]: Topic votes changed id from AAAAAAAAAAAAAAAAAAAAAA to c3WvJvDnR7-9gRkVfKyQeA`.
fn parse_topic_id_change(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("Topic ")?;
    let (topic, change) = rest.split_once(" changed id from ")?;
    let (_, id) = change.split_once(" to ")?;
    Some((topic, id))
}

impl ConsumerContext for TopicIdWatcher {}

impl ClientContext for TopicIdWatcher {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.observe_line(message);
        self.status.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.status.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.events.fetch_add(1, Ordering::Relaxed);
        self.status.stats(statistics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_topic_id_is_another_log() {
        let watcher = TopicIdWatcher::new("votes", watch::Sender::default());
        assert_eq!(watcher.generation(), None);
        watcher.observe_line("[thrd:main]: Topic votes.dead changed id from AAA to DEAD");
        assert_eq!(watcher.generation(), None);
        watcher.observe_line("[thrd:main]: Topic votes changed id from AAA to ONE");
        assert_eq!(watcher.generation(), Some(0));
        // A client that has dropped the topic's metadata reports the same id again.
        watcher.observe_line("[thrd:main]: Topic votes changed id from AAA to ONE");
        assert_eq!(watcher.generation(), Some(0));
        watcher.observe_line("[thrd:main]: Topic votes changed id from AAA to TWO");
        assert_eq!(watcher.generation(), Some(1));
    }
}
