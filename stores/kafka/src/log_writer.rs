//! The writing end of the vote log: an idempotent Kafka producer, which is replaced after a fatal error.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use metrics::Gauge;
use rdkafka::{
    ClientConfig, ClientContext, Message, Statistics,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use votes::{
    ConnectError, DeliveryFuture, HealthDetails, LogPosition, LogWriter, Offset, Partition, PublishError, Store,
    StoreError, Vote, delivery_channel,
};

use crate::{
    accumulator::{PendingRecord, RecordAccumulator, RecordSink},
    address::Address,
    admin::Admin,
    client::{BROKERS_LOST, ClientStatus, STORE},
    in_flight::{DeliveryReport, InFlight},
    settings::SettingsWatcher,
    topic::{self, Topic},
};

/// The longest time that a vote waits for Kafka, here and in librdkafka. Then the vote is refused, and the client can
/// safely send it again.
const DELIVERY_TIMEOUT: Duration = Duration::from_millis(1_250);

/// The time between two checks for overdue votes. The sum of this time and [`DELIVERY_TIMEOUT`] is below the two
/// seconds within which a producer has to respond.
const EXPIRY_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long the health check fails after the last overdue vote, if no vote is confirmed meanwhile. Without this limit,
/// a process that gets no votes would stay unhealthy.
const UNHEALTHY_HOLD: Duration = Duration::from_secs(10);

/// The longest time that [`KafkaLogWriter::connect`] waits for the producer id of Kafka. No vote can be sent without a
/// producer id.
const PRODUCER_ID_TIMEOUT: Duration = Duration::from_secs(10);

/// The problem that the health check and refusals report while votes are overdue.
const NOT_ACKING: &str = "Kafka confirms no votes at the moment";

/// The time between two batches that are handed to librdkafka, unless the URL sets `linger.ms`.
const LINGER: Duration = Duration::from_millis(8);

/// The time that librdkafka itself waits for the remaining records of a batch, in milliseconds.
const LIBRDKAFKA_LINGER_MS: &str = "0.5";

/// The writing end of a topic.
pub struct KafkaLogWriter {
    topic: Topic,
    pub(super) settings: Arc<SettingsWatcher>,
    guarantees: HealthDetails,
    pub(super) producer: Arc<ManagedProducer>,
    accumulator: RecordAccumulator,
}

/// A Kafka producer that is replaced after a fatal error, and the votes that Kafka has not confirmed.
pub(super) struct ManagedProducer {
    topic: String,
    config: ClientConfig,
    current: RwLock<Arc<KafkaProducer>>,
    in_flight: Arc<InFlight>,
    deliveries: Deliveries,
}

pub(super) type KafkaProducer = BaseProducer<DeliveryContext>;

impl KafkaLogWriter {
    /// Creates or validates the topic, and connects. At most `max_queued_votes` votes wait for their receipts. The
    /// gauge `queued_votes` shows their number.
    pub async fn connect(url: &str, max_queued_votes: usize, queued_votes: Gauge) -> Result<Self, ConnectError> {
        let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
        let topic = topic::ensure(&address).await?;
        let log_writer = Self::start(&address, topic, max_queued_votes, queued_votes);
        let log_writer = log_writer.map_err(|error| ConnectError::BadUrl(error.to_string()))?;
        let mut has_id = log_writer.producer.deliveries.has_producer_id.subscribe();
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
            .set("statistics.interval.ms", "500");
        let linger = config.get("linger.ms").and_then(|millis| millis.parse().ok());
        let linger = linger.map_or(LINGER, |millis: f64| Duration::from_secs_f64(millis.clamp(0.0, 1e3) / 1e3));
        config.set("linger.ms", LIBRDKAFKA_LINGER_MS);
        let guarantees = effective_guarantees(&config)?;
        let producer = ManagedProducer::start(topic.name.clone(), config, max_queued_votes, queued_votes)?;
        let producer = Arc::new(producer);
        tokio::spawn(expire_loop(Arc::downgrade(&producer)));
        let accumulator = RecordAccumulator::start(linger, Arc::clone(&producer));
        let accumulator = accumulator.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        let settings = SettingsWatcher::start(address, &topic, Arc::new(Admin::new(address)));
        Ok(Self { topic, settings, guarantees, producer, accumulator })
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

fn create_producer(config: &ClientConfig, deliveries: &Deliveries) -> Result<KafkaProducer, KafkaError> {
    let context = DeliveryContext { status: ClientStatus::default(), deliveries: deliveries.clone() };
    BaseProducer::from_config_and_context(config, context)
}

/// Returns why a Kafka producer can't continue, or `None` if it can.
fn fatal_error(producer: &KafkaProducer) -> Option<String> {
    let lost = || producer.context().status.has_lost_brokers().then(|| BROKERS_LOST.to_owned());
    producer.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}")).or_else(lost)
}

impl ManagedProducer {
    fn start(
        topic: String,
        config: ClientConfig,
        max_queued_votes: usize,
        queued_votes: Gauge,
    ) -> Result<Self, KafkaError> {
        let (in_flight, deliveries) = (InFlight::new(max_queued_votes, queued_votes), Deliveries::default());
        let current = RwLock::new(Arc::new(create_producer(&config, &deliveries)?));
        Ok(Self { topic, config, current, in_flight: Arc::new(in_flight), deliveries })
    }

    pub(super) fn current(&self) -> Arc<KafkaProducer> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the error for a full queue. If Kafka confirms no votes at the moment, the error names that cause.
    fn queue_full_error(&self) -> PublishError {
        if self.deliveries.is_not_acking.load(Ordering::Relaxed) {
            return PublishError::Unavailable(NOT_ACKING.to_owned());
        }
        PublishError::Full
    }

    /// Replaces the Kafka producer after a fatal error, for example because the topic was deleted and created again.
    fn replace_if_failed(&self) {
        let Some(reason) = fatal_error(&self.current()) else { return };
        match create_producer(&self.config, &self.deliveries) {
            Ok(producer) => {
                tracing::error!(reason, "the Kafka producer failed and was replaced");
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                let failed = std::mem::replace(&mut *current, producer.into());
                drop(current);
                // Dropping a client waits for its threads to end, which may take seconds.
                tokio::task::spawn_blocking(move || drop(failed));
            }
            Err(error) => tracing::error!(reason, %error, "the Kafka producer failed and could not be replaced"),
        }
    }
}

impl RecordSink for ManagedProducer {
    fn produce(&self, PendingRecord { opaque, partition, vote }: PendingRecord) {
        let value = log_record::encode(&vote);
        let record = BaseRecord::with_opaque_to(&self.topic, opaque)
            .partition(i32::from(partition.0))
            .key(vote.key.as_str())
            .payload(&value)
            .timestamp(vote.accepted_at.0)
            .headers(headers(&vote));
        let Err((error, _)) = self.current().send(record) else { return };
        let error = match error {
            // The queue of librdkafka is as large as ours. It is full only if it still contains votes that expired
            // here.
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                PublishError::Unavailable(NOT_ACKING.to_owned())
            }
            error => unavailable(&error),
        };
        self.in_flight.complete([(opaque, Err(error))]);
    }

    fn poll_events(&self) {
        let producer = self.current();
        let reports = || self.deliveries.reports();
        let mut count = reports().len();
        loop {
            // Each poll handles only one event, which is the delivery reports of one request.
            producer.poll(Duration::ZERO);
            let now = reports().len();
            if now == count {
                break;
            }
            count = now;
        }
        let reports = std::mem::take(&mut *reports());
        self.in_flight.complete(reports);
    }

    fn has_in_flight(&self) -> bool {
        self.current().in_flight_count() > 0
    }
}

/// Expires overdue votes and replaces a failed Kafka producer, until the log writer is dropped.
async fn expire_loop(producer: Weak<ManagedProducer>) {
    let mut ticks = interval(EXPIRY_CHECK_INTERVAL);
    let mut last_overdue = Instant::now();
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(producer) = producer.upgrade() else { return };
        let overdue = producer.in_flight.time_out(DELIVERY_TIMEOUT);
        if overdue > 0 {
            last_overdue = Instant::now();
            producer.deliveries.is_not_acking.store(true, Ordering::Relaxed);
            tracing::warn!(votes = overdue, "Kafka did not confirm votes in time");
        }
        if last_overdue.elapsed() > UNHEALTHY_HOLD {
            producer.deliveries.is_not_acking.store(false, Ordering::Relaxed);
        }
        producer.replace_if_failed();
    }
}

#[async_trait]
impl Store for KafkaLogWriter {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let (producer, topic) = (self.producer.current(), self.topic.clone());
        let check = move || {
            let metadata = producer.client().fetch_metadata(Some(&topic.name), topic::DESCRIBE_TIMEOUT);
            topic.check(&metadata.map_err(|error| producer.context().status.explain(&error))?)
        };
        let checked = tokio::task::spawn_blocking(check).await;
        let mut details = checked.map_err(|error| StoreError::new(STORE, error))??;
        // If only one broker of a cluster is left, it reports a healthy topic although no vote can be confirmed.
        if self.producer.deliveries.is_not_acking.load(Ordering::Relaxed) {
            let cause = self.producer.current().context().status.last_error();
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            return Err(StoreError::new(STORE, format!("{NOT_ACKING}{cause}")));
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

    fn publish(&self, partition: Partition, vote: Vote) -> Result<DeliveryFuture, PublishError> {
        if let Some(problem) = self.settings.loss() {
            return Err(PublishError::Unavailable(problem));
        }
        let (sender, receipt) = delivery_channel();
        let opaque = self.producer.in_flight.add(vote.accepted_at, sender);
        let opaque = opaque.ok_or_else(|| self.producer.queue_full_error())?;
        self.accumulator.append(PendingRecord { opaque, partition, vote });
        Ok(receipt)
    }

    async fn flush(&self) {
        self.producer.in_flight.flush().await;
    }
}

/// Returns the headers of a vote: those of `CloudEvents` in Kafka's binary mode, and `traceparent`.
fn headers(vote: &Vote) -> OwnedHeaders {
    let mut id = uuid::Uuid::encode_buffer();
    let headers = OwnedHeaders::new_with_capacity(6)
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_type", "ovation.v1.VoteRecord"))
        .insert(header("ce_source", vote.producer.as_str()))
        .insert(header("ce_id", vote.vote_id.0.hyphenated().encode_lower(&mut id)))
        .insert(header("content-type", "application/protobuf"));
    match &vote.traceparent {
        Some(trace) => headers.insert(header("traceparent", trace.as_str())),
        None => headers,
    }
}

fn header<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

fn unavailable(error: &KafkaError) -> PublishError {
    let problem = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    PublishError::Unavailable(format!("Kafka did not confirm the vote: {problem}"))
}

/// What the current Kafka producer and the replaced Kafka producers report about deliveries.
#[derive(Clone, Default)]
struct Deliveries {
    /// The delivery reports since the last poll, which are handled together.
    reports: Arc<Mutex<Vec<DeliveryReport>>>,
    has_producer_id: watch::Sender<bool>,
    /// Whether votes were overdue within [`UNHEALTHY_HOLD`], and no vote was confirmed since.
    is_not_acking: Arc<AtomicBool>,
}

impl Deliveries {
    fn reports(&self) -> MutexGuard<'_, Vec<DeliveryReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callback object that receives the delivery reports of a Kafka producer.
pub(super) struct DeliveryContext {
    pub(super) status: ClientStatus,
    deliveries: Deliveries,
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, opaque: usize) {
        let outcome = match delivered {
            Ok(message) => position(message.partition(), message.offset()),
            Err((error, _)) => Err(unavailable(error)),
        };
        if outcome.is_ok() {
            self.deliveries.is_not_acking.store(false, Ordering::Relaxed);
        }
        self.deliveries.reports().push((opaque, outcome));
    }
}

fn position(partition: i32, offset: i64) -> Result<LogPosition, PublishError> {
    match (u16::try_from(partition), u64::try_from(offset)) {
        (Ok(partition), Ok(offset)) => Ok(LogPosition { partition: Partition(partition), offset: Offset(offset) }),
        _ => Err(PublishError::Unavailable(format!(
            "Kafka confirmed the vote without a valid position: partition {partition}, offset {offset}"
        ))),
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.status.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.status.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.eos.as_ref().is_some_and(|eos| eos.idemp_state == "Assigned") {
            self.deliveries.has_producer_id.send_replace(true);
        }
        self.status.stats(statistics);
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        mocking::MockCluster,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };
    use tokio::time::sleep;
    use votes::conformance::logged;

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
        let producer = log_writer.producer.current();
        let refused = KafkaError::Global(RDKafkaErrorCode::Authentication);
        producer.context().error(refused, "SASL authentication error: Authentication failed (after 5ms in state AUTH)");
        let problem = producer.context().status.explain(&KafkaError::Canceled).problem;
        assert!(problem.starts_with("SASL authentication error: Authentication failed; the URL needs"), "{problem}");
    }

    #[tokio::test]
    async fn a_vote_of_a_replaced_kafka_producer_gets_its_outcome() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("votes", 1, 1).unwrap();
        // The Kafka producer gets no producer id, which is a fatal error. The error arrives after the vote was
        // produced.
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("enable.idempotence", "true");
        let producer = ManagedProducer::start("votes".to_owned(), config, 10, Gauge::noop()).unwrap();
        let (vote, (sender, mut receipt)) = (logged(1, Partition(0), 0).vote, delivery_channel());
        let opaque = producer.in_flight.add(vote.accepted_at, sender).unwrap();
        producer.produce(PendingRecord { opaque, partition: Partition(0), vote });
        while producer.current().client().fatal_error().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        // The delivery report of the vote was not polled yet.
        producer.replace_if_failed();
        let outcome = async {
            loop {
                producer.poll_events();
                if let Ok(outcome) = timeout(Duration::from_millis(10), &mut receipt).await {
                    return outcome;
                }
            }
        };
        let outcome = timeout(Duration::from_secs(20), outcome).await.expect("the vote gets its outcome");
        assert!(matches!(outcome, Err(PublishError::Unavailable(_))), "{outcome:?}");
    }
}
