//! The vote log on Apache Kafka.
//!
//! | file | what |
//! |---|---|
//! | [`address`] | the URL: brokers, topic and options |
//! | [`topic`] | makes the topics, or checks that they keep the promise |
//! | [`queue`] | the doors' end: acknowledged means in every in-sync replica |
//! | [`outbox`] | hands votes to the client library in time with each other |
//! | [`receipts`] | votes on their way, each with its sender and its deadline |
//! | [`feed`] | the consumers' end: partitions read from where the *stores* say |
//! | [`identity`] | which log is behind the topic's name: notices one that was made anew |
//! | [`group`] | which partitions are whose |
//! | [`dead`] | the dead-letter topic |
//! | [`chunks`] | the topic of imports' chunks |
//! | [`seldom`] | sends dead letters and chunks |
//! | [`expire`] | letting go of what is counted |
//! | `errors` | tried: what a door answers to each error of a broker |
//! | `lost` | tried: clients that forget all brokers |

mod address;
mod chunks;
mod dead;
#[cfg(test)]
mod errors;
mod expire;
mod feed;
mod group;
mod identity;
#[cfg(test)]
mod lost;
mod outbox;
mod queue;
mod receipts;
mod seldom;
mod topic;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Message, Statistics,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use address::Address;

use crate::open::NotOpen;

pub(crate) use chunks::KafkaChunks;
pub(crate) use feed::KafkaFeed;
pub(crate) use group::has_consumers;
pub(crate) use queue::KafkaQueue;

/// What the log is called in errors.
const STORE: &str = "vote log";

/// Said of a client that [has lost its brokers](Voice::has_lost_brokers).
const LOST: &str = "Kafka's client knows no broker any more";

/// The text of a record's header, if it has one of this name.
fn header_of<'a>(message: &'a BorrowedMessage<'_>, key: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == key)?;
    std::str::from_utf8(header.value?).ok()
}

/// What librdkafka says of itself: its words go to our log.
#[derive(Default)]
struct Voice {
    has_lost_brokers: AtomicBool,
    /// Why a connection failed last.
    complaint: Mutex<Option<String>>,
}

impl Voice {
    /// Whether the client knows no broker any more, and so will never do anything again: it has to be replaced.
    ///
    /// A broker that was away too long answers, for a moment, that the cluster has no brokers, and librdkafka 2.10 and newer
    /// forgets those that the cluster does not name (confluentinc/librdkafka#5301). It tells so in its statistics only.
    fn has_lost_brokers(&self) -> bool {
        self.has_lost_brokers.load(Ordering::Relaxed)
    }

    /// Why a question was not answered: the question's own error only says that its time was over.
    fn why(&self, error: &KafkaError) -> NotOpen {
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(complaint) = complaint else { return NotOpen::Unreachable(error.to_string()) };
        if complaint.contains("SASL authentication error") {
            return NotOpen::Refused(format!(
                "{complaint}; the URL needs sasl.mechanism, sasl.username and sasl.password of a user of these brokers"
            ));
        }
        NotOpen::untrusted(&complaint, "ssl.ca.location").unwrap_or(NotOpen::Unreachable(complaint))
    }
}

/// What the library says of a failed connection, without how long that took.
fn complaint(reason: &str) -> String {
    reason.split(" (after ").next().unwrap_or(reason).to_owned()
}

/// How long is listened to a client for another error.
const LISTEN: Duration = Duration::from_millis(100);

/// Asks brokers something for the first time. A consumer asks, in no group: it is a client that can be listened to, and only so
/// it says why a connection failed.
fn ask<T>(address: &Address, question: impl FnOnce(&BaseConsumer<Voice>) -> KafkaResult<T>) -> Result<T, NotOpen> {
    let client: BaseConsumer<Voice> = BaseConsumer::from_config_and_context(&address.client(), Voice::default())
        .map_err(|error| NotOpen::BadUrl(error.to_string()))?;
    question(&client).map_err(|error| {
        // Each error ends a look, and what else was said does not.
        while client.poll(LISTEN).is_some() {}
        client.context().why(&error)
    })
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Lost connections are no errors of ours: what they cost is told where it is noticed.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        // That all brokers are down is what follows from what was said of each.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint(reason));
        }
    }

    fn stats(&self, statistics: Statistics) {
        let is_broker = |source: &str| source != "internal" && source != "logical";
        let has_lost_brokers = !statistics.brokers.values().any(|broker| is_broker(&broker.source));
        self.has_lost_brokers.store(has_lost_brokers, Ordering::Relaxed);
    }
}
