//! The vote log on Apache Kafka.
//!
//! | file | subject |
//! |---|---|
//! | [`address`] | the URL: brokers, topic and options |
//! | [`client`] | the status that a librdkafka client reports, and a query that explains why a connection failed |
//! | [`admin`] | the client for administrative requests |
//! | [`topic`] | creates the topics, or checks that they have the required settings |
//! | [`settings`] | watches the settings of the topics while the system runs |
//! | [`log_writer`] | the producers' end: an acknowledged vote is in every in-sync replica |
//! | [`producer`] | the Kafka producer of the votes, which is replaced after a fatal error |
//! | [`rounds`] | groups votes into rounds, and wakes those that wait for a receipt |
//! | [`statistics`] | turns the statistics of the producer into metrics |
//! | [`log_reader`] | the consumers' end: partitions are read from the positions of the *stores* |
//! | [`fetcher`] | the client that fetches records, and which partitions it fetches |
//! | [`partition_reader`] | collects the records of one partition into batches |
//! | [`tail`] | finds the end of a partition whose last offsets have no record |
//! | [`topic_id`] | detects a topic that was deleted and created again under the same name |
//! | [`group`] | the membership in the consumer group, which assigns partitions to its members |
//! | [`dead_letters`] | the dead-letter topic |
//! | [`chunks`] | the topic of the chunks of imports |
//! | [`lazy_producer`] | sends dead letters and chunks |
//! | [`expire`] | deletes counted records that have passed the retention |
//! | `tests/broker_errors` | what a producer responds after each error of a broker |
//! | `tests/lost_brokers` | clients that have lost all brokers |
//! | `tests/slow_broker` | a broker that does not respond, while the others do |

mod address;
mod admin;
mod chunks;
mod client;
mod dead_letters;
mod expire;
mod fetcher;
mod group;
mod lazy_producer;
mod log_reader;
mod log_writer;
mod partition_reader;
mod producer;
mod rounds;
mod settings;
mod statistics;
mod tail;
#[cfg(test)]
mod tests;
mod topic;
mod topic_id;

pub use chunks::KafkaChunks;
pub use group::{Membership, has_consumers};
pub use log_reader::KafkaLogReader;
pub use log_writer::KafkaLogWriter;

/// Checks the URL of a vote log, without a connection.
///
/// # Errors
/// Returns which part is wrong, and what it should be.
pub fn check_url(url: &str) -> Result<(), String> {
    address::Address::parse(url).map(drop)
}
