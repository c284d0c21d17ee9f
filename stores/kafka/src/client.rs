//! The status that a librdkafka client reports, and a query that explains why a connection failed.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Statistics,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use votes::{ConnectError, StoreError};

use crate::address::Address;

/// The name of the vote log in errors.
pub(crate) const STORE: &str = "vote log";

/// The error of a client that [has lost its brokers](ClientStatus::has_lost_brokers).
pub(crate) const BROKERS_LOST: &str = "the Kafka client has lost all brokers";

/// The time after which the same reason of failed connections is logged again.
const CONNECTION_LOG_INTERVAL: Duration = Duration::from_mins(1);

/// The longest time that [`query_brokers`] waits for each further error event of the client.
const ERROR_WAIT: Duration = Duration::from_millis(100);

/// Returns the value of a header of a record, if the record has that header and its value is text.
pub(crate) fn header_of<'a>(message: &'a BorrowedMessage<'_>, key: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == key)?;
    std::str::from_utf8(header.value?).ok()
}

/// The status that librdkafka reports for a client. The log lines of librdkafka go to our log.
#[derive(Default)]
pub(crate) struct ClientStatus {
    pub(crate) has_lost_brokers: AtomicBool,
    /// The reason of the last connection failure, until a broker is connected.
    last_error: Mutex<Option<String>>,
    /// The reason of a connection failure that was logged last, and when.
    logged: Mutex<Option<(String, Instant)>>,
}

impl ClientStatus {
    /// Returns whether the client has no broker left. Such a client never connects again and must be replaced.
    ///
    /// A broker that was away for long reports for a moment that the cluster has no brokers. librdkafka 2.10 and newer
    /// then drops every broker that this report does not list (confluentinc/librdkafka#5301). Only the statistics of
    /// librdkafka show this.
    pub(crate) fn has_lost_brokers(&self) -> bool {
        self.has_lost_brokers.load(Ordering::Relaxed)
    }

    /// Returns the last connection error since a broker was connected, if there is one.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs why a connection failed. The client connects again and again, so the same reason is logged once in a while.
    fn log_connection_error(&self, reason: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known =
            logged.as_ref().is_some_and(|(known, at)| known == reason && at.elapsed() < CONNECTION_LOG_INTERVAL);
        if !is_known {
            tracing::warn!(reason, "a connection to Kafka failed");
            *logged = Some((reason.to_owned(), Instant::now()));
        }
    }

    /// Returns the error of a query of a health check, with the cause of a failed connection.
    pub(crate) fn explain(&self, error: &KafkaError) -> StoreError {
        failed(self.connect_error(error))
    }

    /// Returns why a query failed. `error`, the error of the query, is often only a time-out. The last connection error
    /// contains the cause.
    pub(crate) fn connect_error(&self, error: &KafkaError) -> ConnectError {
        let Some(last_error) = self.last_error() else { return ConnectError::Unreachable(error.to_string()) };
        if last_error.contains("SASL authentication error") {
            return ConnectError::Refused(format!(
                "{last_error}; the URL needs sasl.mechanism, sasl.username and sasl.password of a user of these brokers"
            ));
        }
        ConnectError::untrusted(&last_error, "ssl.ca.location").unwrap_or(ConnectError::Unreachable(last_error))
    }
}

/// Removes the duration that librdkafka appends to the reason of a failed connection.
fn without_duration(reason: &str) -> String {
    reason.split(" (after ").next().unwrap_or(reason).to_owned()
}

/// Runs a query to the brokers with a new client. If the query fails, the error contains why the connection failed. The
/// client is a consumer without a group, because rdkafka lets us poll the error events of a consumer. Blocks.
pub(crate) fn query_brokers<T>(
    address: &Address,
    query: impl FnOnce(&BaseConsumer<ClientStatus>) -> KafkaResult<T>,
) -> Result<T, ConnectError> {
    let client: BaseConsumer<ClientStatus> =
        BaseConsumer::from_config_and_context(&address.client(), ClientStatus::default())
            .map_err(|error| ConnectError::BadUrl(error.to_string()))?;
    query(&client).map_err(|error| {
        // `poll` returns once for each error event, and `None` if there was no event within the wait.
        while client.poll(ERROR_WAIT).is_some() {}
        client.context().connect_error(&error)
    })
}

impl ClientContext for ClientStatus {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka connects again after a lost connection. `error` logs why a connection failed, and the callers log the
        // operations that fail meanwhile.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, message, "kafka client");
            }
            _ => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        // "All brokers are down" has no cause. The errors of the single brokers, which come before it, have the cause.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            let reason = without_duration(reason);
            self.log_connection_error(&reason);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let is_broker = |source: &str| source != "internal" && source != "logical";
        let has_lost_brokers = !statistics.brokers.values().any(|broker| is_broker(&broker.source));
        self.has_lost_brokers.store(has_lost_brokers, Ordering::Relaxed);
        if statistics.brokers.values().any(|broker| is_broker(&broker.source) && broker.state == "UP") {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// Returns an error of the vote log with the text of the driver.
pub(crate) fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, error)
}
