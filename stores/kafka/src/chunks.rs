//! The topic of the chunks of imports. Each chunk is a JSON object, and one worker of the group receives it.
//!
//! Workers commit their offsets to Kafka. Kafka may deliver a chunk again. Then the worker skips the chunk if it is
//! done, or loads its rows again, which changes nothing.

use std::time::Duration;

use async_trait::async_trait;
use query::{ChunkQueue, import::Chunk};
use rdkafka::{
    Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::KafkaResult,
    producer::FutureRecord,
};
use tokio::{sync::Mutex, time::timeout};
use votes::{ConnectError, HealthDetails, Store, StoreError};

use crate::{
    address::Address,
    client::{BROKERS_LOST, ClientStatus},
    lazy_producer::LazyProducer,
    topic,
};

/// The longest time of one wait for a chunk. Then the worker checks whether its client has lost its brokers, and waits
/// again.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The time without a heartbeat after which a worker loses its partitions. It is the shortest time that brokers allow
/// by default.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The longest time that a worker may take for a chunk, including outages of stores. A slower worker loses its
/// partitions.
const MAX_POLL_INTERVAL: Duration = Duration::from_mins(15);

/// The topic of the chunks of imports.
pub struct KafkaChunks {
    address: Address,
    producer: LazyProducer,
    worker: Mutex<Option<Worker>>,
}

/// A member of the group of workers.
struct Worker {
    client: StreamConsumer<ClientStatus>,
    in_flight: Option<InFlightChunk>,
}

/// A chunk that is not yet acknowledged.
struct InFlightChunk {
    chunk: Chunk,
    /// The offset to commit once the chunk is acknowledged.
    next: TopicPartitionList,
}

impl KafkaChunks {
    /// Creates the topic if it is missing.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let address = Address::parse(url).map_err(ConnectError::BadUrl)?;
        topic::ensure_chunks(&address).await?;
        Ok(Self { producer: LazyProducer::new(&address), address, worker: Mutex::default() })
    }

    /// Joins the group of workers.
    fn join(&self) -> KafkaResult<Worker> {
        let mut config = self.address.client();
        config
            .set("group.id", format!("{}-imports", self.address.group_id()))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
            .set("heartbeat.interval.ms", (SESSION_TIMEOUT / 4).as_millis().to_string())
            .set("max.poll.interval.ms", MAX_POLL_INTERVAL.as_millis().to_string())
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        let client: StreamConsumer<ClientStatus> =
            StreamConsumer::from_config_and_context(&config, ClientStatus::default())?;
        client.subscribe(&[&self.address.chunks_topic()])?;
        Ok(Worker { client, in_flight: None })
    }
}

impl Worker {
    /// Waits for a chunk, and skips records that are no chunks. Returns the same chunk until it is acknowledged.
    async fn next_chunk(&mut self) -> Result<Chunk, StoreError> {
        if let Some(in_flight) = &self.in_flight {
            return Ok(in_flight.chunk.clone());
        }
        loop {
            let Ok(message) = timeout(POLL_INTERVAL, self.client.recv()).await else {
                if self.client.context().has_lost_brokers() {
                    return Err(failed(BROKERS_LOST));
                }
                continue;
            };
            let message = message.map_err(failed)?;
            let mut next = TopicPartitionList::with_capacity(1);
            let after = rdkafka::Offset::Offset(message.offset() + 1);
            next.add_partition_offset(message.topic(), message.partition(), after).map_err(failed)?;
            match serde_json::from_slice::<Chunk>(message.payload().unwrap_or_default()) {
                Ok(chunk) => {
                    self.in_flight = Some(InFlightChunk { chunk: chunk.clone(), next });
                    return Ok(chunk);
                }
                Err(error) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    tracing::warn!(topic = message.topic(), partition, offset, %error, "a record is no chunk and was skipped");
                }
            }
        }
    }
}

#[async_trait]
impl Store for KafkaChunks {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        let topic = self.address.chunks_topic();
        let metadata = self.producer.metadata(&topic).await.map_err(failed)?;
        topic::check_leaders(&topic, &metadata).map_err(failed)?;
        Ok(HealthDetails::from([("topic", topic)]))
    }
}

#[async_trait]
impl ChunkQueue for KafkaChunks {
    async fn publish(&self, chunks: &[Chunk]) -> Result<(), StoreError> {
        let topic = self.address.chunks_topic();
        let payloads = chunks.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let records = chunks.iter().zip(&payloads).map(|(chunk, payload)| {
            let partition = i32::try_from(chunk.number % u32::from(self.address.partitions)).unwrap_or_default();
            FutureRecord::to(&topic).partition(partition).payload(payload.as_slice())
        });
        self.producer.send(records).await.map_err(failed)
    }

    async fn next(&self) -> Result<Chunk, StoreError> {
        let mut current = self.worker.lock().await;
        let worker = match &mut *current {
            Some(worker) => worker,
            none => none.insert(self.join().map_err(failed)?),
        };
        let chunk = worker.next_chunk().await;
        if chunk.is_err() {
            // Drop the failed client: the next call joins again. The group delivers chunks again that were not
            // acknowledged.
            *current = None;
        }
        chunk
    }

    async fn acknowledge(&self) -> Result<(), StoreError> {
        let mut worker = self.worker.lock().await;
        let Some(worker) = &mut *worker else { return Ok(()) };
        let Some(in_flight) = worker.in_flight.take() else { return Ok(()) };
        worker.client.commit(&in_flight.next, CommitMode::Async).map_err(failed)
    }
}

fn failed(problem: impl std::fmt::Display) -> StoreError {
    StoreError::new("imports", problem)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// The longest time that one step may take. It is ten times the usual time, for a busy machine.
    const TEST_TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread")]
    async fn the_health_check_fails_while_the_brokers_are_down() {
        let cluster = MockCluster::new(1).unwrap();
        let url = format!("kafka://{}/votes?partitions=2", cluster.bootstrap_servers());
        let address = Address::parse(&url).unwrap();
        cluster.create_topic(&address.chunks_topic(), 2, 1).unwrap();
        let chunks = KafkaChunks { producer: LazyProducer::new(&address), address, worker: Mutex::default() };
        assert_eq!(chunks.check().await.unwrap()["topic"], "votes.imports");
        cluster.broker_down(-1).unwrap();
        let problem = timeout(TEST_TIMEOUT, chunks.check()).await.expect("the check returns").unwrap_err();
        assert!(problem.to_string().starts_with("imports: "), "{problem}");
        cluster.broker_up(-1).unwrap();
        let recovered = async { while chunks.check().await.is_err() {} };
        timeout(TEST_TIMEOUT, recovered).await.expect("the topic is healthy again");
    }
}
