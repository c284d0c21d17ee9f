//! The Kafka producer of the votes: one librdkafka client, which is replaced after a fatal error, and a thread that
//! handles its delivery reports.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

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
    task::yield_now,
    time::{MissedTickBehavior, interval},
};
use votes::{
    BallotKey, DeliveryFuture, LogPosition, Offset, Partition, PublishError, UnixMillis, Vote, delivery_channel,
};

use crate::{
    client::{BROKERS_LOST, ClientStatus},
    rounds::Rounds,
    statistics::{self, ClientCounters},
};

/// The longest time that a vote waits for Kafka, here and in librdkafka. Then the vote is refused, and the client can
/// safely send it again.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_millis(1_250);

/// The time between two checks for overdue votes and for a failed client. The sum of this time, of
/// [`DELIVERY_TIMEOUT`] and of the time that a vote waits for its round is below the two seconds within which a producer
/// has to respond. Delivery reports do not wait for the check.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The time between two checks of a thread whether it has to end. At the end of each call, rdkafka's `poll` runs for up to
/// a millisecond without a pause.
const POLL_TIME: Duration = Duration::from_secs(1);

/// How long the health check fails after the last failed vote, if no vote is confirmed meanwhile. Without this limit,
/// a process that gets no votes would stay unhealthy.
const UNHEALTHY_HOLD: Duration = Duration::from_secs(10);

/// The time between two attempts to replace a failed client.
const REPLACE_INTERVAL: Duration = Duration::from_secs(1);

/// The problem that the health check and refusals report while votes fail.
pub(super) const NOT_ACKING: &str = "Kafka confirms no votes at the moment";

/// Publishes votes on a topic.
pub(super) struct VoteProducer {
    topic: String,
    config: ClientConfig,
    rounds: Rounds<Record>,
    /// Has a value once the producer has started.
    current: RwLock<Option<Arc<KafkaClient>>>,
    pub(super) has_producer_id: watch::Sender<bool>,
    /// Why votes failed within [`UNHEALTHY_HOLD`], unless a vote was confirmed since.
    failure: Mutex<Option<Failure>>,
    /// Whether `failure` has a value.
    is_failing: AtomicBool,
    /// Whether the log writer was dropped. The thread then ends after the last vote.
    is_closed: AtomicBool,
}

pub(super) type KafkaClient = BaseProducer<DeliveryContext>;

/// Why votes fail.
struct Failure {
    cause: String,
    last: Instant,
}

/// The record of a vote.
struct Record {
    partition: Partition,
    key: BallotKey,
    value: Vec<u8>,
    accepted_at: UnixMillis,
    headers: OwnedHeaders,
}

impl VoteProducer {
    /// Starts a client with this configuration.
    pub(super) fn start(
        topic: String,
        config: ClientConfig,
        partitions: u16,
        max_queued_votes: usize,
        queued_votes: Gauge,
    ) -> Result<Arc<Self>, KafkaError> {
        let producer = Arc::new(Self {
            topic,
            config,
            rounds: Rounds::new(partitions, max_queued_votes, queued_votes),
            current: RwLock::default(),
            has_producer_id: watch::Sender::default(),
            failure: Mutex::default(),
            is_failing: AtomicBool::default(),
            is_closed: AtomicBool::default(),
        });
        statistics::describe_metrics();
        producer.start_client()?;
        tokio::spawn(Arc::clone(&producer).run_rounds());
        tokio::spawn(Arc::clone(&producer).check());
        Ok(producer)
    }

    /// Starts a client, which becomes the current one.
    fn start_client(self: &Arc<Self>) -> Result<(), KafkaError> {
        let (status, counters) = (ClientStatus::default(), Mutex::default());
        let context = DeliveryContext { status, producer: Arc::downgrade(self), counters };
        let client: Arc<KafkaClient> = Arc::new(BaseProducer::from_config_and_context(&self.config, context)?);
        let run = {
            let (producer, client) = (Arc::clone(self), Arc::clone(&client));
            move || producer.handle_events(&client)
        };
        let started = thread::Builder::new().name("deliveries".to_owned()).spawn(run);
        started.map_err(|error: io::Error| KafkaError::ClientCreation(error.to_string()))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(client);
        Ok(())
    }

    pub(super) fn current(&self) -> Option<Arc<KafkaClient>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the partition in which the next vote costs the least.
    pub(super) fn preferred_partition(&self) -> Partition {
        self.rounds.preferred_partition()
    }

    /// Publishes a vote. The record is encoded in the thread of the caller.
    pub(super) fn publish(&self, partition: Partition, vote: Vote) -> Result<DeliveryFuture, PublishError> {
        let (sender, receipt) = delivery_channel();
        let (value, headers) = (log_record::encode(&vote), headers(&vote));
        let (key, accepted_at) = (vote.key, vote.accepted_at);
        let record = Record { partition, key, value, accepted_at, headers };
        self.rounds.add(partition, record, accepted_at, sender).map_err(|error| self.explain(error))?;
        Ok(receipt)
    }

    /// Replaces the error for a full queue by its cause, if Kafka confirms no votes at the moment.
    fn explain(&self, error: PublishError) -> PublishError {
        match error {
            PublishError::Full if self.is_failing.load(Ordering::Relaxed) => {
                PublishError::Unavailable(NOT_ACKING.to_owned())
            }
            error => error,
        }
    }

    /// Returns why no vote is confirmed, if votes have failed lately and none was confirmed since.
    pub(super) fn failure(&self) -> Option<String> {
        self.locked_failure().as_ref().map(|failure| failure.cause.clone())
    }

    fn locked_failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a vote failed. Logs a cause that is new.
    fn record_failure(&self, cause: &str) {
        let mut failure = self.locked_failure();
        if failure.as_ref().is_none_or(|known| known.cause != cause) {
            tracing::warn!(cause, "Kafka does not confirm votes");
        }
        *failure = Some(Failure { cause: cause.to_owned(), last: Instant::now() });
        self.is_failing.store(true, Ordering::Relaxed);
    }

    /// Forgets the failure if `is_over`.
    fn clear_failure(&self, is_over: impl FnOnce(&Failure) -> bool) {
        let mut failure = self.locked_failure();
        if failure.as_ref().is_some_and(is_over) {
            *failure = None;
            self.is_failing.store(false, Ordering::Relaxed);
        }
    }

    /// Waits until every vote has its outcome.
    pub(super) async fn flush(&self) {
        self.rounds.flush().await;
    }

    /// Lets the thread end after the last vote.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.rounds.wake();
    }

    /// Wakes the tasks whose votes have outcomes, and hands over the records of the next rounds, until the log writer is
    /// dropped.
    async fn run_rounds(self: Arc<Self>) {
        while !self.has_ended() {
            self.rounds.changed().await;
            self.rounds.notify();
            // The tasks that are ready to run, which were just woken or have a request, run first. Their votes are in the
            // next round.
            yield_now().await;
            let records = self.rounds.begin();
            if records.is_empty() {
                continue;
            }
            let client = self.current();
            for (opaque, record) in records {
                if let Err(error) = self.send(client.as_deref(), opaque, record) {
                    self.rounds.complete(opaque, Err(error));
                }
            }
        }
    }

    /// Returns whether the log writer was dropped, and every vote has its outcome.
    fn has_ended(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed) && self.rounds.is_empty()
    }

    fn send(&self, client: Option<&KafkaClient>, opaque: usize, record: Record) -> Result<(), PublishError> {
        let Some(client) = client else { return Err(PublishError::Unavailable(NOT_ACKING.to_owned())) };
        let Record { partition, key, value, accepted_at, headers } = record;
        let record = BaseRecord::with_opaque_to(&self.topic, opaque)
            .partition(i32::from(partition.0))
            .key(key.as_str())
            .payload(&value)
            .timestamp(accepted_at.0)
            .headers(headers);
        client.send(record).map_err(|(error, _)| match error {
            // The queue of librdkafka is as large as ours. It is full only if it still contains votes that timed out
            // here.
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                PublishError::Unavailable(NOT_ACKING.to_owned())
            }
            error => {
                self.record_failure(&problem(&error));
                unavailable(&error)
            }
        })
    }

    /// Handles the events of a client, until the client was replaced or the producer is closed, and no record of the
    /// client is without a delivery report. Then the client is dropped here: this may take seconds, and no other thread
    /// waits for it.
    fn handle_events(&self, client: &Arc<KafkaClient>) {
        loop {
            // This waits for events, and calls the context for each of them.
            client.poll(POLL_TIME);
            if self.current().is_some_and(|current| Arc::ptr_eq(&current, client)) {
                if self.has_ended() {
                    self.current.write().unwrap_or_else(PoisonError::into_inner).take();
                }
            } else if client.in_flight_count() == 0 && Arc::strong_count(client) == 1 {
                return;
            }
        }
    }

    /// Ends the wait of overdue votes and replaces a failed client, until the log writer is dropped.
    async fn check(self: Arc<Self>) {
        let (mut ticks, mut failed_at) = (interval(CHECK_INTERVAL), None::<Instant>);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.has_ended() {
            ticks.tick().await;
            self.time_out();
            self.clear_failure(|failure| failure.last.elapsed() > UNHEALTHY_HOLD);
            if failed_at.is_none_or(|at| at.elapsed() > REPLACE_INTERVAL) {
                failed_at = self.replace_if_failed().then(Instant::now);
            }
        }
    }

    /// Ends the wait of overdue votes.
    fn time_out(&self) {
        let timed_out = self.rounds.expire(DELIVERY_TIMEOUT);
        if timed_out > 0 {
            self.record_failure(&format!("no confirmation within {DELIVERY_TIMEOUT:?}"));
        }
    }

    /// Replaces the current client if it has failed, for example because the topic was deleted and created again.
    /// Returns whether it has failed.
    fn replace_if_failed(self: &Arc<Self>) -> bool {
        let Some(reason) = self.current().and_then(|client| fatal_error(&client)) else { return false };
        match self.start_client() {
            Ok(()) => tracing::error!(reason, "the Kafka producer failed and was replaced"),
            Err(error) => tracing::error!(reason, %error, "the Kafka producer failed and could not be replaced"),
        }
        true
    }
}

/// Returns why a client can't continue, or `None` if it can.
fn fatal_error(client: &KafkaClient) -> Option<String> {
    let lost = || client.context().status.has_lost_brokers().then(|| BROKERS_LOST.to_owned());
    client.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}")).or_else(lost)
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
    PublishError::Unavailable(format!("Kafka did not confirm the vote: {}", problem(error)))
}

/// Returns the problem that an error of Kafka names, and what may cause it.
fn problem(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code @ RDKafkaErrorCode::InvalidTimestamp) => {
            format!("{code}; the clock of the producer or of the broker is wrong")
        }
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

/// Receives the delivery reports and the status of a client.
pub(super) struct DeliveryContext {
    pub(super) status: ClientStatus,
    producer: Weak<VoteProducer>,
    counters: Mutex<ClientCounters>,
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, opaque: usize) {
        let Some(producer) = self.producer.upgrade() else { return };
        let outcome = match delivered {
            Ok(message) => {
                if producer.is_failing.load(Ordering::Relaxed) {
                    producer.clear_failure(|_| true);
                }
                position(message.partition(), message.offset())
            }
            Err((error, _)) => {
                producer.record_failure(&problem(error));
                Err(unavailable(error))
            }
        };
        producer.rounds.complete(opaque, outcome);
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
        if let Some(producer) = self.producer.upgrade() {
            if statistics.eos.as_ref().is_some_and(|eos| eos.idemp_state == "Assigned") {
                producer.has_producer_id.send_replace(true);
            }
            let partitions = statistics.topics.get(&producer.topic).into_iter().flat_map(|topic| &topic.partitions);
            let leaders = partitions
                .filter_map(|(number, partition)| Some((Partition(u16::try_from(*number).ok()?), partition.leader)));
            producer.rounds.set_leaders(leaders);
            self.counters.lock().unwrap_or_else(PoisonError::into_inner).record(&statistics, &producer.topic);
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
    use tokio::time::timeout;
    use votes::conformance::logged;

    use super::*;

    /// The longest time that one step may take. It is much longer than usual, for a busy machine.
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_vote_of_a_replaced_client_gets_its_outcome() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("votes", 1, 1).unwrap();
        // The client gets no producer id, which is a fatal error. The error arrives after the vote was handed over.
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("enable.idempotence", "true");
        let producer = VoteProducer::start("votes".to_owned(), config, 1, 10, Gauge::noop()).unwrap();
        let failed = Arc::downgrade(&producer.current().unwrap());
        let receipt = producer.publish(Partition(0), logged(1, Partition(0), 0).vote).unwrap();
        let outcome = timeout(TEST_TIMEOUT, receipt).await.expect("the vote gets its outcome");
        assert!(matches!(outcome, Err(PublishError::Unavailable(_))), "{outcome:?}");
        let published = async {
            while producer.publish(Partition(0), logged(2, Partition(0), 1).vote).unwrap().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        timeout(TEST_TIMEOUT, published).await.expect("the next client publishes votes");
        let dropped = async {
            while failed.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        };
        timeout(TEST_TIMEOUT, dropped).await.expect("the failed client is dropped");
        producer.close();
    }
}
