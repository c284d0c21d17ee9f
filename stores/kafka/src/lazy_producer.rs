//! A Kafka producer for rare records that must be durable: dead letters and the chunks of imports.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    config::FromClientConfigAndContext,
    error::{KafkaError, KafkaResult},
    metadata::Metadata,
    producer::{FutureProducer, FutureRecord, Producer},
};
use tokio::task::spawn_blocking;

use crate::{
    address::Address,
    client::ClientStatus,
    topic::{DESCRIBE_TIMEOUT, MAX_MESSAGE_BYTES},
};

/// The longest time that brokers may take to store a record in all in-sync replicas.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// A Kafka producer that is created on first use, and again after an error.
pub(super) struct LazyProducer {
    address: Address,
    current: Mutex<Option<FutureProducer<ClientStatus>>>,
}

impl LazyProducer {
    pub(super) fn new(address: &Address) -> Self {
        Self { address: address.clone(), current: Mutex::default() }
    }

    /// Sends records. When this returns `Ok`, all records are in every in-sync replica.
    pub(super) async fn send(
        &self,
        records: impl Iterator<Item = FutureRecord<'_, [u8], [u8]>> + Send,
    ) -> KafkaResult<()> {
        let producer = self.producer()?;
        let sent = deliver(&producer, records).await;
        self.drop_on_error(sent, producer)
    }

    /// Fetches the metadata of a topic.
    pub(super) async fn metadata(&self, topic: &str) -> KafkaResult<Metadata> {
        let (producer, topic) = (self.producer()?, topic.to_owned());
        let query = {
            let producer = producer.clone();
            move || producer.client().fetch_metadata(Some(&topic), DESCRIBE_TIMEOUT)
        };
        let metadata = spawn_blocking(query).await;
        self.drop_on_error(metadata.unwrap_or(Err(KafkaError::Canceled)), producer)
    }

    fn producer(&self) -> KafkaResult<FutureProducer<ClientStatus>> {
        let mut current = self.current();
        if let Some(producer) = &*current {
            return Ok(producer.clone());
        }
        let mut config = self.address.client();
        config.set("acks", "all").set("enable.idempotence", "true");
        config.set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string());
        config.set("message.max.bytes", MAX_MESSAGE_BYTES.to_string());
        let producer = FutureProducer::from_config_and_context(&config, ClientStatus::default())?;
        Ok(current.insert(producer).clone())
    }

    /// Drops the producer if `outcome` is an error, because some errors of a producer are permanent.
    fn drop_on_error<T>(&self, outcome: KafkaResult<T>, producer: FutureProducer<ClientStatus>) -> KafkaResult<T> {
        if outcome.is_err() {
            let replaced = self.current().take();
            // Dropping a client waits for its threads to end.
            spawn_blocking(move || drop((replaced, producer)));
        }
        outcome
    }

    fn current(&self) -> MutexGuard<'_, Option<FutureProducer<ClientStatus>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn deliver(
    producer: &FutureProducer<ClientStatus>,
    records: impl Iterator<Item = FutureRecord<'_, [u8], [u8]>> + Send,
) -> KafkaResult<()> {
    let sent = records.map(|record| producer.send_result(record).map_err(|(error, _)| error));
    for delivery in sent.collect::<KafkaResult<Vec<_>>>()? {
        delivery.await.map_err(|_| KafkaError::Canceled)?.map_err(|(error, _)| error)?;
    }
    Ok(())
}
