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
    producer::FutureRecord,
};
use tokio::{sync::Mutex, time::timeout};
use votes::{ChunkQueue, Facts, Store, StoreError, import::Chunk};

use super::{LOST, Voice, address::Address, seldom::Seldom, topic};
use crate::open::NotOpen;

/// How often a worker that waits looks whether its client still knows a broker.
const LOOK: Duration = Duration::from_secs(1);

/// After this much silence of a worker its chunks go to others: the least that brokers allow by default.
const SESSION: Duration = Duration::from_secs(6);

/// How long a worker may take for a chunk, outages of stores included.
const PATIENCE: Duration = Duration::from_mins(15);

pub(crate) struct KafkaChunks {
    address: Address,
    sender: Seldom,
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
        Ok(Self { sender: Seldom::new(&address), address, worker: Mutex::default() })
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
        let topic = self.address.chunks_topic();
        let now = self.sender.look_at(&topic).await.map_err(failed)?;
        topic::led(&topic, &now).map_err(failed)?;
        Ok(Facts::from([("topic", topic)]))
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
        self.sender.send(records).await.map_err(failed)
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

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// How long anything may take, with an order of magnitude for a busy machine.
    const SOON: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread")]
    async fn its_health_is_that_of_its_brokers() {
        let cluster = MockCluster::new(1).unwrap();
        let url = format!("kafka://{}/votes?partitions=2", cluster.bootstrap_servers());
        let address = Address::parse(&url).unwrap();
        cluster.create_topic(&address.chunks_topic(), 2, 1).unwrap();
        let chunks = KafkaChunks { sender: Seldom::new(&address), address, worker: Mutex::default() };
        assert_eq!(chunks.check().await.unwrap()["topic"], "votes.imports");
        cluster.broker_down(-1).unwrap();
        let problem = timeout(SOON, chunks.check()).await.expect("an answer").unwrap_err();
        assert!(problem.to_string().starts_with("imports: "), "{problem}");
        cluster.broker_up(-1).unwrap();
        let recovered = async { while chunks.check().await.is_err() {} };
        timeout(SOON, recovered).await.expect("it is well again");
    }
}
