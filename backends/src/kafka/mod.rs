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
//! | `errors` | tried: what a door answers to each error of a broker |

mod address;
mod dead;
#[cfg(test)]
mod errors;
mod feed;
mod group;
mod identity;
mod outbox;
mod queue;
mod receipts;
mod topic;

use rdkafka::{
    ClientContext, Message,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};

pub(crate) use feed::KafkaFeed;
pub(crate) use group::has_consumers;
pub(crate) use queue::KafkaQueue;

/// What the log is called in errors.
const STORE: &str = "vote log";

/// The text of a record's header, if it has one of this name.
fn header_of<'a>(message: &'a BorrowedMessage<'_>, key: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == key)?;
    std::str::from_utf8(header.value?).ok()
}

/// Sends librdkafka's own words to our log.
#[derive(Clone, Copy)]
struct Voice;

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
    }
}
