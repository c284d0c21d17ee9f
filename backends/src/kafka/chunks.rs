//! The topic of imports' chunks: each is a JSON object, and goes to one of the group of workers.
//!
//! Its offsets are Kafka's to keep: a chunk that comes again is known to be done, or is loaded again, which changes nothing.

use std::time::Duration;

use async_trait::async_trait;
use rdkafka::{
    Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::KafkaResult,
    producer::{FutureProducer, FutureRecord},
};
use tokio::{sync::Mutex, time::timeout};
use votes::{ChunkQueue, Facts, Store, StoreError, import::Chunk};

use super::{LOST, Voice, address::Address, topic};
use crate::open::NotOpen;

/// How often a worker that waits looks whether its client still knows a broker.
const LOOK: Duration = Duration::from_secs(1);

/// After this much silence of a worker its chunks go to others: the least that brokers allow by default.
const SESSION: Duration = Duration::from_secs(6);

/// How long a worker may take for a chunk, outages of stores included.
const PATIENCE: Duration = Duration::from_mins(15);

pub(crate) struct KafkaChunks {
    address: Address,
    producer: Mutex<Option<FutureProducer<Voice>>>,
    worker: Mutex<Option<Worker>>,
}

/// A member of the group.
struct Worker {
    client: StreamConsumer<Voice>,
    taken: Option<Taken>,
}

/// A chunk that is not settled.
struct Taken {
    chunk: Chunk,
    /// What is committed once it is.
    next: TopicPartitionList,
}

impl KafkaChunks {
    /// The topic of this log's imports; makes it if it is missing.
    pub(crate) async fn connect(url: &str) -> Result<Self, NotOpen> {
        let address = Address::parse(url).map_err(NotOpen::BadUrl)?;
        topic::ensure_chunks(&address).await?;
        Ok(Self { address, producer: Mutex::default(), worker: Mutex::default() })
    }

    /// Joins the group.
    fn join(&self) -> KafkaResult<Worker> {
        let mut config = self.address.client();
        config
            .set("group.id", format!("{}-imports", self.address.group()))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION.as_millis().to_string())
            .set("heartbeat.interval.ms", (SESSION / 4).as_millis().to_string())
            .set("max.poll.interval.ms", PATIENCE.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        let client: StreamConsumer<Voice> = StreamConsumer::from_config_and_context(&config, Voice::default())?;
        client.subscribe(&[&self.address.chunks_topic()])?;
        Ok(Worker { client, taken: None })
    }
}

impl Worker {
    /// Waits for a chunk that is one.
    async fn take(&mut self) -> Result<Chunk, StoreError> {
        if let Some(taken) = &self.taken {
            return Ok(taken.chunk.clone());
        }
        loop {
            let Ok(message) = timeout(LOOK, self.client.recv()).await else {
                if self.client.context().has_lost_brokers() {
                    return Err(failed(LOST));
                }
                continue;
            };
            let message = message.map_err(failed)?;
            let mut next = TopicPartitionList::with_capacity(1);
            let after = rdkafka::Offset::Offset(message.offset() + 1);
            next.add_partition_offset(message.topic(), message.partition(), after).map_err(failed)?;
            match serde_json::from_slice::<Chunk>(message.payload().unwrap_or_default()) {
                Ok(chunk) => {
                    self.taken = Some(Taken { chunk: chunk.clone(), next });
                    return Ok(chunk);
                }
                Err(error) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    tracing::warn!(topic = message.topic(), partition, offset, %error, "a record is no chunk, and is passed over");
                }
            }
        }
    }
}

#[async_trait]
impl Store for KafkaChunks {
    async fn check(&self) -> Result<Facts, StoreError> {
        Ok(Facts::from([("topic", self.address.chunks_topic())]))
    }
}

#[async_trait]
impl ChunkQueue for KafkaChunks {
    async fn publish(&self, chunks: &[Chunk]) -> Result<(), StoreError> {
        let mut kept = self.producer.lock().await;
        let producer = match kept.take() {
            Some(producer) => producer,
            None => super::producer(&self.address).map_err(failed)?,
        };
        let topic = self.address.chunks_topic();
        let mut sent = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let payload = serde_json::to_vec(chunk).map_err(failed)?;
            let partition = i32::try_from(chunk.number % u32::from(self.address.partitions)).unwrap_or_default();
            let record = FutureRecord::<(), _>::to(&topic).partition(partition).payload(&payload);
            sent.push(producer.send_result(record).map_err(|(error, _)| failed(error))?);
        }
        for delivery in sent {
            delivery.await.map_err(failed)?.map_err(|(error, _)| failed(error))?;
        }
        *kept = Some(producer);
        Ok(())
    }

    async fn next(&self) -> Result<Chunk, StoreError> {
        let mut kept = self.worker.lock().await;
        let worker = match &mut *kept {
            Some(worker) => worker,
            none => none.insert(self.join().map_err(failed)?),
        };
        let taken = worker.take().await;
        if taken.is_err() {
            // A client that has failed is replaced: the group has the chunk that it may have taken.
            *kept = None;
        }
        taken
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let mut kept = self.worker.lock().await;
        let Some(worker) = &mut *kept else { return Ok(()) };
        let Some(taken) = worker.taken.take() else { return Ok(()) };
        worker.client.commit(&taken.next, CommitMode::Async).map_err(failed)
    }
}

fn failed(problem: impl std::fmt::Display) -> StoreError {
    StoreError::new("imports", problem)
}
