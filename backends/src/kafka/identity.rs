//! Which log it is. A topic that is deleted and made again has the same name, and another id.
//!
//! Brokers give records by the topic's id (Kafka 3.1 and newer), so records that were asked for with one id are of one log.
//! But when librdkafka hears of another id it goes on at the same offset of the *other* log without an error
//! (`rd_kafka_topic_metadata_update`, since nobody has asked it to care). It only writes a line to its debug log. It does so
//! before it takes the new id over, so a reader that has read this log up to now, and found no line, knows of the records
//! it already has that they are of the log it knows.
//!
//! Whether the library still writes that line is tried by tests against a real Kafka; without it no record is believed.

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

use super::Voice;

/// The part of librdkafka's debug log that has the line.
pub(super) const DEBUG: &str = "topic";

/// A reading client's ear: learns the topic's id.
pub(super) struct Identity {
    pub(super) voice: Voice,
    topic: String,
    /// What was learned, by this client or one before it.
    log: watch::Sender<Log>,
    /// This client has told an id.
    has_told: AtomicBool,
    /// Lines heard, of any kind.
    heard: AtomicU64,
    hearing: Mutex<()>,
}

/// Which log is behind the topic's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    id: Option<String>,
    /// How often it has become another.
    generation: u64,
}

impl Log {
    /// `None` as long as brokers have told no id.
    pub(super) fn generation(&self) -> Option<u64> {
        self.id.as_ref().map(|_| self.generation)
    }
}

impl Identity {
    /// For a client of a topic. `log` is what is known of it already.
    pub(super) fn new(topic: &str, log: watch::Sender<Log>) -> Self {
        Self {
            voice: Voice::default(),
            topic: topic.to_owned(),
            log,
            has_told: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            hearing: Mutex::default(),
        }
    }

    /// The generation of the log that was heard of last; `None` as long as brokers have told this client no id.
    pub(super) fn generation(&self) -> Option<u64> {
        self.log.borrow().generation().filter(|_| self.has_told.load(Ordering::Relaxed))
    }

    /// Hears all that the client has said until now: when this returns, nothing that was said before is still on its way.
    pub(super) fn hear(client: &BaseConsumer<Self>) {
        let this = client.context();
        // One at a time, or a line could be in another's hands.
        let _turn = this.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let before = this.heard.load(Ordering::Relaxed);
            // Records come through the partitions' queues; here are only words.
            match client.poll(Duration::ZERO) {
                Some(Err(error)) => tracing::debug!(%error, "feed"),
                Some(Ok(message)) => drop(message),
                None if this.heard.load(Ordering::Relaxed) == before => return,
                None => {}
            }
        }
    }

    /// A line like `[thrd:main]: Topic votes changed id from AAAAAAAAAAAAAAAAAAAAAA to c3WvJvDnR7-9gRkVfKyQeA`.
    fn learn(&self, line: &str) {
        let change = line.split_once("Topic ").and_then(|(_, rest)| rest.split_once(" changed id from "));
        let Some((topic, change)) = change else { return };
        let Some((_, id)) = change.split_once(" to ").filter(|_| topic == self.topic) else { return };
        self.has_told.store(true, Ordering::Relaxed);
        self.log.send_if_modified(|log| match &log.id {
            Some(known) if known == id => false,
            known => {
                if let Some(known) = known {
                    log.generation += 1;
                    tracing::error!(topic, before = known, now = id, "the topic was made anew");
                }
                log.id = Some(id.to_owned());
                true
            }
        });
    }
}

impl ConsumerContext for Identity {}

impl ClientContext for Identity {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.learn(message);
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.voice.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.voice.stats(statistics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_id_is_another_log() {
        let identity = Identity::new("votes", watch::Sender::default());
        assert_eq!(identity.generation(), None);
        identity.learn("[thrd:main]: Topic votes.dead changed id from AAA to DEAD");
        assert_eq!(identity.generation(), None);
        identity.learn("[thrd:main]: Topic votes changed id from AAA to ONE");
        assert_eq!(identity.generation(), Some(0));
        // A client that forgot the topic meanwhile learns it again.
        identity.learn("[thrd:main]: Topic votes changed id from AAA to ONE");
        assert_eq!(identity.generation(), Some(0));
        identity.learn("[thrd:main]: Topic votes changed id from AAA to TWO");
        assert_eq!(identity.generation(), Some(1));
    }
}
