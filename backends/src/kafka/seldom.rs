//! Sends what is sent seldom, and has to be there for good: dead letters, and imports' chunks.

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

use super::{Voice, address::Address, topic::DESCRIBE};

/// How long brokers may take to have a record for good.
const DELIVERED: Duration = Duration::from_secs(5);

/// A producer that is made when it is first needed, and anew after an error.
pub(super) struct Seldom {
    address: Address,
    kept: Mutex<Option<FutureProducer<Voice>>>,
}

impl Seldom {
    pub(super) fn new(address: &Address) -> Self {
        Self { address: address.clone(), kept: Mutex::default() }
    }

    /// Sends records; all are there for good when this returns.
    pub(super) async fn send(
        &self,
        records: impl Iterator<Item = FutureRecord<'_, [u8], [u8]>> + Send,
    ) -> KafkaResult<()> {
        let producer = self.producer()?;
        let sent = deliver(&producer, records).await;
        self.unless_failed(sent)
    }

    /// What the brokers say now of a topic.
    pub(super) async fn look_at(&self, topic: &str) -> KafkaResult<Metadata> {
        let (producer, topic) = (self.producer()?, topic.to_owned());
        let looked = spawn_blocking(move || producer.client().fetch_metadata(Some(&topic), DESCRIBE)).await;
        self.unless_failed(looked.unwrap_or(Err(KafkaError::Canceled)))
    }

    fn producer(&self) -> KafkaResult<FutureProducer<Voice>> {
        let mut kept = self.kept();
        if let Some(producer) = &*kept {
            return Ok(producer.clone());
        }
        let mut config = self.address.client();
        config.set("acks", "all").set("enable.idempotence", "true");
        config.set("message.timeout.ms", DELIVERED.as_millis().to_string());
        let producer = FutureProducer::from_config_and_context(&config, Voice::default())?;
        Ok(kept.insert(producer).clone())
    }

    /// A producer that has failed is not used again: some of its errors are for ever.
    fn unless_failed<T>(&self, outcome: KafkaResult<T>) -> KafkaResult<T> {
        if outcome.is_err() {
            *self.kept() = None;
        }
        outcome
    }

    fn kept(&self) -> MutexGuard<'_, Option<FutureProducer<Voice>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn deliver(
    producer: &FutureProducer<Voice>,
    records: impl Iterator<Item = FutureRecord<'_, [u8], [u8]>> + Send,
) -> KafkaResult<()> {
    let sent = records.map(|record| producer.send_result(record).map_err(|(error, _)| error));
    for delivery in sent.collect::<KafkaResult<Vec<_>>>()? {
        delivery.await.map_err(|_| KafkaError::Canceled)?.map_err(|(error, _)| error)?;
    }
    Ok(())
}
