//! The doors' end of the log: one idempotent producer for the life of the process.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
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
    Facts, Offset, Partition, PendingReceipt, Place, PublishError, Store, StoreError, Vote, VoteQueue, receipt_channel,
};

use super::{
    LOST, STORE, Voice,
    address::Address,
    outbox::{Library, Outbox, Outgoing},
    receipts::{Outcome, Receipts},
    topic::{self, Topic},
};
use crate::{open::NotOpen, record};

/// After this a vote that Kafka has not confirmed is given up, here and by the client library. The door says so, and that
/// sending it again is safe.
const PATIENCE: Duration = Duration::from_millis(1_250);

/// How often overdue votes are looked for. With [`PATIENCE`] a door answers within two seconds, whatever Kafka does.
const LOOK: Duration = Duration::from_millis(50);

/// How long it is remembered that no vote was confirmed. Then votes have to show it anew: a door that nobody tries would never
/// be well again.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the doors wait for the producer's identity, without which the first votes would wait for it.
const WARM_UP: Duration = Duration::from_secs(10);

/// Said while Kafka is silent.
const SILENT: &str = "Kafka confirms no votes at the moment";

/// The time from one handing over of votes to the library to the next, unless the URL says another `linger.ms`.
const PACE: Duration = Duration::from_millis(8);

/// How long the library waits for the rest of what is handed over.
const LINGER_MS: &str = "0.5";

/// The writing end of a topic.
pub(crate) struct KafkaQueue {
    topic: Topic,
    promise: Facts,
    pub(super) producer: Arc<Producing>,
    outbox: Outbox,
}

/// The producer and the votes it has not confirmed.
pub(super) struct Producing {
    topic: String,
    config: ClientConfig,
    /// Replaced after an error from which a producer can't recover.
    handle: RwLock<Arc<Handle>>,
    receipts: Arc<Receipts>,
    deliveries: Deliveries,
}

pub(super) type Handle = BaseProducer<Ear>;

impl KafkaQueue {
    /// Makes or checks the topic, and connects. At most `most` votes wait for their receipts.
    pub(crate) async fn connect(url: &str, most: usize) -> Result<Self, NotOpen> {
        let address = Address::parse(url).map_err(NotOpen::BadUrl)?;
        let topic = topic::ensure(&address).await?;
        let queue = Self::start(&address, topic, most).map_err(|error| NotOpen::BadUrl(error.to_string()))?;
        let mut is_warm = queue.producer.deliveries.is_warm.subscribe();
        if timeout(WARM_UP, is_warm.wait_for(|is_warm| *is_warm)).await.is_err() {
            return Err(NotOpen::Unreachable("Kafka gave the producer no identity".to_owned()));
        }
        Ok(queue)
    }

    pub(super) fn start(address: &Address, topic: Topic, most: usize) -> Result<Self, KafkaError> {
        let mut config = address.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .set("request.timeout.ms", PATIENCE.as_millis().to_string())
            .set("queue.buffering.max.messages", most.to_string())
            .set("statistics.interval.ms", "500");
        let pace = config.get("linger.ms").and_then(|millis| millis.parse().ok());
        let pace = pace.map_or(PACE, |millis: f64| Duration::from_secs_f64(millis.clamp(0.0, 1e3) / 1e3));
        config.set("linger.ms", LINGER_MS);
        let promise = promise(&config)?;
        let producer = Arc::new(Producing::start(topic.name.clone(), config, most)?);
        tokio::spawn(watch_over(Arc::downgrade(&producer)));
        let outbox = Outbox::start(pace, Arc::clone(&producer));
        let outbox = outbox.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { topic, promise, producer, outbox })
    }
}

/// What the client library will do, in its own words; asked of it, since an option may be overruled.
fn promise(config: &ClientConfig) -> Result<Facts, KafkaError> {
    let native = config.create_native_config()?;
    let effective = |name| native.get(name).map(|value| value.trim_end_matches('\0').to_owned());
    let (acks, idempotence) = (effective("acks")?, effective("enable.idempotence")?);
    assert!(acks == "-1" && idempotence == "true", "acks {acks}, idempotence {idempotence}");
    Ok(Facts::from([("acks", "all".to_owned()), ("idempotence", "on".to_owned())]))
}

fn open_producer(config: &ClientConfig, deliveries: &Deliveries) -> Result<Handle, KafkaError> {
    BaseProducer::from_config_and_context(config, Ear { voice: Voice::default(), deliveries: deliveries.clone() })
}

/// Why a producer can't go on, if it can't.
fn what_broke(handle: &Handle) -> Option<String> {
    let lost = || handle.context().voice.has_lost_brokers().then(|| LOST.to_owned());
    handle.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}")).or_else(lost)
}

impl Producing {
    fn start(topic: String, config: ClientConfig, most: usize) -> Result<Self, KafkaError> {
        let (receipts, deliveries) = (Arc::new(Receipts::new(most)), Deliveries::default());
        let handle = RwLock::new(Arc::new(open_producer(&config, &deliveries)?));
        Ok(Self { topic, config, handle, receipts, deliveries })
    }

    pub(super) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Votes pile up where Kafka is away, and then that is what the voter should hear.
    fn full(&self) -> PublishError {
        if self.deliveries.is_silent.load(Ordering::Relaxed) {
            return PublishError::Unavailable(SILENT.to_owned());
        }
        PublishError::Full
    }

    /// A producer that has met an error it can't recover from, like a topic that was made anew, is replaced.
    fn replace_if_broken(&self) {
        let Some(reason) = what_broke(&self.handle()) else { return };
        match open_producer(&self.config, &self.deliveries) {
            Ok(handle) => {
                tracing::error!(reason, "the producer can't go on and was replaced");
                let broken =
                    std::mem::replace(&mut *self.handle.write().unwrap_or_else(PoisonError::into_inner), handle.into());
                // Its end may take a while.
                tokio::task::spawn_blocking(move || drop(broken));
            }
            Err(error) => tracing::error!(reason, %error, "the producer can't go on, nor be replaced"),
        }
    }
}

impl Library for Producing {
    fn hand_over(&self, Outgoing { number, partition, vote }: Outgoing) {
        let value = record::encode(&vote);
        let record = BaseRecord::with_opaque_to(&self.topic, number)
            .partition(i32::from(partition.0))
            .key(vote.key.as_str())
            .payload(&value)
            .timestamp(vote.accepted_at.0)
            .headers(headers(&vote));
        let Err((error, _)) = self.handle().send(record) else { return };
        let refusal = match error {
            // There is room for as many as have no receipt yet, so votes that were given up fill the library.
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => PublishError::Unavailable(SILENT.to_owned()),
            error => unavailable(&error),
        };
        self.receipts.settle([(number, Err(refusal))]);
    }

    fn hear(&self) {
        let handle = self.handle();
        let heard = || self.deliveries.heard();
        let mut known = heard().len();
        loop {
            // Hears of one request's votes.
            handle.poll(Duration::ZERO);
            let now = heard().len();
            if now == known {
                break;
            }
            known = now;
        }
        let outcomes = std::mem::take(&mut *heard());
        self.receipts.settle(outcomes);
    }

    fn is_busy(&self) -> bool {
        self.handle().in_flight_count() > 0
    }
}

/// Gives up overdue votes, until the queue is gone.
async fn watch_over(producer: Weak<Producing>) {
    let mut ticks = interval(LOOK);
    let mut last_overdue = Instant::now();
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(producer) = producer.upgrade() else { return };
        let overdue = producer.receipts.expire(PATIENCE);
        if overdue > 0 {
            last_overdue = Instant::now();
            producer.deliveries.is_silent.store(true, Ordering::Relaxed);
            tracing::warn!(votes = overdue, "Kafka did not confirm votes in time");
        }
        if last_overdue.elapsed() > SILENCE {
            producer.deliveries.is_silent.store(false, Ordering::Relaxed);
        }
        producer.replace_if_broken();
    }
}

#[async_trait]
impl Store for KafkaQueue {
    async fn check(&self) -> Result<Facts, StoreError> {
        let (handle, topic) = (self.producer.handle(), self.topic.clone());
        let look = move || {
            let metadata = handle.client().fetch_metadata(Some(&topic.name), topic::DESCRIBE);
            topic.check(&metadata.map_err(|error| StoreError::new(STORE, error))?)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let mut facts = looked.map_err(|error| StoreError::new(STORE, error))??;
        // A broker that is alone does not know that the others are gone.
        if self.producer.deliveries.is_silent.load(Ordering::Relaxed) {
            return Err(StoreError::new(STORE, SILENT));
        }
        facts.extend(self.promise.clone());
        Ok(facts)
    }
}

#[async_trait]
impl VoteQueue for KafkaQueue {
    fn partitions(&self) -> u16 {
        self.topic.partitions
    }

    fn publish(&self, partition: Partition, vote: Vote) -> Result<PendingReceipt, PublishError> {
        let (sender, receipt) = receipt_channel();
        let number = self.producer.receipts.add(vote.accepted_at, sender).ok_or_else(|| self.producer.full())?;
        self.outbox.put(Outgoing { number, partition, vote });
        Ok(receipt)
    }

    async fn flush(&self) {
        self.producer.receipts.all_settled().await;
    }
}

/// `CloudEvents` in Kafka's binary mode, and the trace.
fn headers(vote: &Vote) -> OwnedHeaders {
    let mut id = uuid::Uuid::encode_buffer();
    let headers = OwnedHeaders::new_with_capacity(6)
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_type", "ovation.v1.VoteRecord"))
        .insert(header("ce_source", vote.door.as_str()))
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

/// Hears what became of each vote: of those of the producer, and of those that one before it had when it was replaced.
#[derive(Clone, Default)]
struct Deliveries {
    /// Answered together.
    heard: Arc<Mutex<Vec<Outcome>>>,
    is_warm: watch::Sender<bool>,
    /// Votes ran out of time lately, and none was confirmed since.
    is_silent: Arc<AtomicBool>,
}

impl Deliveries {
    fn heard(&self) -> MutexGuard<'_, Vec<Outcome>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A producer's ear.
pub(super) struct Ear {
    pub(super) voice: Voice,
    deliveries: Deliveries,
}

impl ProducerContext for Ear {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, number: usize) {
        let outcome = match delivered {
            Ok(message) => place(message.partition(), message.offset()),
            Err((error, _)) => Err(unavailable(error)),
        };
        if outcome.is_ok() {
            self.deliveries.is_silent.store(false, Ordering::Relaxed);
        }
        self.deliveries.heard().push((number, outcome));
    }
}

fn place(partition: i32, offset: i64) -> Result<Place, PublishError> {
    match (u16::try_from(partition), u64::try_from(offset)) {
        (Ok(partition), Ok(offset)) => Ok(Place { partition: Partition(partition), offset: Offset(offset) }),
        _ => Err(PublishError::Unavailable(format!("Kafka confirmed the vote at no place: {partition}, {offset}"))),
    }
}

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.eos.as_ref().is_some_and(|eos| eos.idemp_state == "Assigned") {
            self.deliveries.is_warm.send_replace(true);
        }
        self.voice.stats(statistics);
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

    #[tokio::test]
    async fn what_a_replaced_producer_had_is_answered_at_once() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("votes", 1, 1).unwrap();
        // It gets no identity, which it can't recover from, and hears so when the vote is already there.
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("enable.idempotence", "true");
        let producing = Producing::start("votes".to_owned(), config, 10).unwrap();
        let (vote, (sender, mut receipt)) = (logged(1, Partition(0), 0).vote, receipt_channel());
        let number = producing.receipts.add(vote.accepted_at, sender).unwrap();
        producing.hand_over(Outgoing { number, partition: Partition(0), vote });
        while producing.handle().client().fatal_error().is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        // Nobody has heard of the vote until now.
        producing.replace_if_broken();
        let answered = async {
            loop {
                producing.hear();
                if let Ok(outcome) = timeout(Duration::from_millis(10), &mut receipt).await {
                    return outcome;
                }
            }
        };
        let outcome = timeout(Duration::from_secs(20), answered).await.expect("the vote is answered");
        assert!(matches!(outcome, Err(PublishError::Unavailable(_))), "{outcome:?}");
    }
}
