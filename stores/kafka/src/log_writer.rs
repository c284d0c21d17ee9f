//! The writing end of the vote log.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::Gauge;
use rdkafka::{ClientConfig, error::KafkaError, producer::Producer};
use tokio::time::timeout;
use votes::{ConnectError, DeliveryFuture, HealthDetails, LogWriter, Partition, PublishError, Store, StoreError, Vote};

use crate::{
    address::Address,
    admin::Admin,
    client::STORE,
    producer::{DELIVERY_TIMEOUT, NOT_ACKING, VoteProducer},
    settings::SettingsWatcher,
    topic::{self, Topic},
};

/// The longest time that [`KafkaLogWriter::connect`] waits for the producer id of Kafka. No vote can be sent without a
/// producer id.
const PRODUCER_ID_TIMEOUT: Duration = Duration::from_secs(10);

/// The writing end of a topic.
pub struct KafkaLogWriter {
    topic: Topic,
    pub(super) settings: Arc<SettingsWatcher>,
    guarantees: HealthDetails,
    pub(super) producer: Arc<VoteProducer>,
}

impl KafkaLogWriter {
    /// Creates or validates the topic, and connects. At most `max_queued_votes` votes wait for their receipts. The
    /// gauge `queued_votes` shows their number.
    pub async fn connect(url: &str, max_queued_votes: usize, queued_votes: Gauge) -> Result<Self, ConnectError> {
        let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
        let topic = topic::ensure(&address).await?;
        let log_writer = Self::start(&address, topic, max_queued_votes, queued_votes);
        let log_writer = log_writer.map_err(|error| ConnectError::BadUrl(error.to_string()))?;
        let mut has_id = log_writer.producer.has_producer_id.subscribe();
        if timeout(PRODUCER_ID_TIMEOUT, has_id.wait_for(|has_id| *has_id)).await.is_err() {
            return Err(ConnectError::Unreachable("Kafka assigned no producer id".to_owned()));
        }
        Ok(log_writer)
    }

    pub(super) fn start(
        address: &Address,
        topic: Topic,
        max_queued_votes: usize,
        queued_votes: Gauge,
    ) -> Result<Self, KafkaError> {
        let mut config = address.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("request.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("queue.buffering.max.messages", max_queued_votes.to_string())
            // The records of a round are handed over together, so librdkafka need not wait for more.
            .set("linger.ms", "0")
            .set("statistics.interval.ms", "500");
        let guarantees = effective_guarantees(&config)?;
        let producer =
            VoteProducer::start(topic.name.clone(), config, topic.partitions, max_queued_votes, queued_votes)?;
        let settings = SettingsWatcher::start(address, &topic, Arc::new(Admin::new(address)));
        Ok(Self { topic, settings, guarantees, producer })
    }
}

impl Drop for KafkaLogWriter {
    fn drop(&mut self) {
        self.producer.close();
    }
}

/// Returns the guarantees that librdkafka will apply. They are read from librdkafka, because an option of the URL may
/// overrule them under another name.
///
/// # Errors
/// If librdkafka would not apply `acks=all` and idempotence.
fn effective_guarantees(config: &ClientConfig) -> Result<HealthDetails, KafkaError> {
    let native = config.create_native_config()?;
    let effective = |name| native.get(name).map(|value| value.trim_end_matches('\0').to_owned());
    let (acks, idempotence) = (effective("acks")?, effective("enable.idempotence")?);
    if acks != "-1" || idempotence != "true" {
        return Err(KafkaError::ClientCreation(format!(
            "an option changes the guarantees of the vote log: acks is {acks} and has to be -1, enable.idempotence is \
             {idempotence} and has to be true"
        )));
    }
    Ok(HealthDetails::from([("acks", "all".to_owned()), ("idempotence", "on".to_owned())]))
}

#[async_trait]
impl Store for KafkaLogWriter {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let Some(client) = self.producer.current() else {
            return Err(StoreError::new(STORE, "the Kafka producer has stopped"));
        };
        let (client_of_check, topic) = (Arc::clone(&client), self.topic.clone());
        let check = move || {
            let metadata = client_of_check.client().fetch_metadata(Some(&topic.name), topic::DESCRIBE_TIMEOUT);
            topic.check(&metadata.map_err(|error| client_of_check.context().status.explain(&error))?)
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let mut details = checked.map_err(|error| StoreError::new(STORE, error))??;
        // If only one broker of a cluster is left, it reports a healthy topic although no vote can be confirmed.
        if let Some(cause) = self.producer.failure() {
            let cause = client.context().status.last_error().unwrap_or(cause);
            return Err(StoreError::new(STORE, format!("{NOT_ACKING}: {cause}")));
        }
        if let Some(problem) = self.settings.problem() {
            return Err(StoreError::new(STORE, problem.text));
        }
        details.extend(self.guarantees.clone());
        Ok(details)
    }
}

#[async_trait]
impl LogWriter for KafkaLogWriter {
    fn partitions(&self) -> u16 {
        self.topic.partitions
    }

    fn preferred_partition(&self) -> Option<Partition> {
        Some(self.producer.preferred_partition())
    }

    fn publish(&self, partition: Partition, vote: Vote) -> Result<DeliveryFuture, PublishError> {
        if let Some(problem) = self.settings.loss() {
            return Err(PublishError::Unavailable(problem));
        }
        self.producer.publish(partition, vote)
    }

    async fn flush(&self) {
        self.producer.flush().await;
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{ClientContext, error::RDKafkaErrorCode};

    use super::*;

    #[test]
    fn options_that_change_the_guarantees_are_an_error_with_their_names() {
        for (option, value) in [("acks", "1"), ("request.required.acks", "0"), ("enable.idempotence", "false")] {
            let mut config = ClientConfig::new();
            config.set("acks", "all").set("enable.idempotence", "true").set(option, value);
            if let Ok(guarantees) = effective_guarantees(&config) {
                // Which of two names of an option wins is not defined.
                assert_eq!(guarantees["acks"], "all", "{option}={value}");
                assert_ne!(option, "enable.idempotence");
            }
        }
        let mut config = ClientConfig::new();
        config.set("acks", "1").set("enable.idempotence", "false");
        let error = effective_guarantees(&config).unwrap_err().to_string();
        assert!(error.contains("acks is 1 and has to be -1, enable.idempotence is false"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_health_check_names_the_cause_of_a_failed_connection() {
        let address = Address::parse("kafka://127.0.0.1:1/votes").unwrap();
        let topic = Topic { name: "votes".to_owned(), partitions: 1, replication: 1, min_insync: 1 };
        let log_writer = KafkaLogWriter::start(&address, topic, 10, Gauge::noop()).unwrap();
        let named = async {
            loop {
                let problem = log_writer.check().await.unwrap_err().problem;
                if problem.contains("Connection refused") {
                    return;
                }
            }
        };
        timeout(Duration::from_mins(1), named).await.expect("the cause is named");
        // The cause of a refused password is in the error of the connection, too.
        let client = log_writer.producer.current().expect("a client");
        let refused = KafkaError::Global(RDKafkaErrorCode::Authentication);
        client.context().error(refused, "SASL authentication error: Authentication failed (after 5ms in state AUTH)");
        let problem = client.context().status.explain(&KafkaError::Canceled).problem;
        assert!(problem.starts_with("SASL authentication error: Authentication failed; the URL needs"), "{problem}");
    }
}
