//! The dead-letter topic: each record has the poison's own key and value, and says in headers where it was and what is wrong
//! with it. It is on the partition of its number.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::{BorrowedMessage, Header, OwnedHeaders},
    producer::FutureRecord,
};
use votes::{DeadLetter, Offset, Partition, Place, Poison, StoreError, UnixMillis};

use super::{STORE, Voice, address::Address, header_of, seldom::Seldom};

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

const PARTITION: &str = "partition";
const OFFSET: &str = "offset";
const REASON: &str = "reason";

pub(super) struct DeadLetters {
    address: Address,
    sender: Seldom,
}

impl ConsumerContext for Voice {}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, format!("dead letters: {error}"))
}

impl DeadLetters {
    pub(super) fn new(address: &Address) -> Self {
        Self { address: address.clone(), sender: Seldom::new(address) }
    }

    /// Puts letters on the topic; each is there for good when this returns. One that is already there is there twice, and
    /// listed once.
    pub(super) async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError> {
        let topic = self.address.dead_topic();
        let records = dead.iter().map(|DeadLetter { place, accepted_at, poison }| {
            let (partition, offset) = (place.partition.to_string(), place.offset.to_string());
            let header = |key, value| Header { key, value: Some(value) };
            let headers = OwnedHeaders::new_with_capacity(3)
                .insert(header(PARTITION, partition.as_str()))
                .insert(header(OFFSET, offset.as_str()))
                .insert(header(REASON, poison.reason.as_str()));
            FutureRecord::to(&topic)
                .partition(i32::from(place.partition.0))
                .key(poison.key.as_slice())
                .payload(poison.value.as_slice())
                .timestamp(accepted_at.0)
                .headers(headers)
        });
        self.sender.send(records).await.map_err(failed)
    }

    /// The letters about offsets in `[from, to)` of a partition.
    pub(super) async fn list(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let address = self.address.clone();
        let letters = tokio::task::spawn_blocking(move || read_all(&address, partition)).await.map_err(failed)??;
        Ok(letters.into_values().filter(|letter| (from..to).contains(&letter.place.offset)).collect())
    }
}

/// Reads the whole of a partition of the topic.
fn read_all(address: &Address, partition: Partition) -> Result<BTreeMap<Offset, DeadLetter>, StoreError> {
    let mut config = address.client();
    config
        .set("group.id", format!("{}-readers", address.group()))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true");
    let client: BaseConsumer<Voice> =
        BaseConsumer::from_config_and_context(&config, Voice::default()).map_err(failed)?;
    let (topic, number) = (address.dead_topic(), i32::from(partition.0));
    let (start, end) = client.fetch_watermarks(&topic, number, ANSWER).map_err(failed)?;
    let mut letters = BTreeMap::new();
    if start == end {
        return Ok(letters);
    }
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&topic, number, rdkafka::Offset::Offset(start)).map_err(failed)?;
    client.assign(&list).map_err(failed)?;
    loop {
        match client.poll(ANSWER) {
            Some(Ok(message)) => {
                let letter = read(&message)?;
                letters.insert(letter.place.offset, letter);
                if message.offset() + 1 >= end {
                    return Ok(letters);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(letters),
            Some(Err(error)) => return Err(failed(error)),
            None => return Err(failed(format!("no answer within {ANSWER:?}"))),
        }
    }
}

fn read(message: &BorrowedMessage<'_>) -> Result<DeadLetter, StoreError> {
    let header = |key: &str| {
        header_of(message, key)
            .ok_or_else(|| failed(format!("the record at {} has no header {key:?}", message.offset())))
    };
    let place = Place {
        partition: Partition(header(PARTITION)?.parse().map_err(failed)?),
        offset: Offset(header(OFFSET)?.parse().map_err(failed)?),
    };
    let poison = Poison {
        reason: header(REASON)?.to_owned(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().unwrap_or_default().to_vec(),
    };
    Ok(DeadLetter { place, accepted_at: UnixMillis(message.timestamp().to_millis().unwrap_or_default()), poison })
}
