//! The dead-letter topic. A dead letter has the key and the value of the invalid record, and headers with the position
//! of that record and the reason. Its partition has the same number as the partition of that record.
//!
//! A dead letter is a copy, and a large record is cut, so that brokers accept the dead letter of any record that they
//! have. The whole record stays on the log.

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use rdkafka::{
    Message, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::{BorrowedMessage, Header, OwnedHeaders},
    producer::FutureRecord,
};
use tokio::{runtime::Handle, task::spawn_blocking};
use votes::{
    DeadLetter, DeadLetterPart, DeadLetterReader, ForeignRecord, InvalidRecord, LogPosition, Offset, Partition,
    StoreError, UnixMillis,
};

use crate::{
    address::Address,
    client::{ClientStatus, STORE, header_of},
    lazy_producer::LazyProducer,
};

/// The longest time that a broker may take to respond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum size of the key of a dead letter. Keys of votes are much shorter.
const MAX_KEY_BYTES: usize = 4 << 10;

/// The maximum size of the value of a dead letter.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// The maximum size of the reason of a dead letter. A reason may quote a text of the record.
const MAX_REASON_BYTES: usize = 1 << 10;

/// The number of dead letters that are sent together. Together they have at most 7 MB, which brokers can store within
/// the delivery time-out of the producer.
const SEND_BATCH: usize = 100;

/// The bytes of dead letters that are read together. The last one of them may exceed this number.
const MAX_PART_BYTES: usize = 1_000_000;

/// The estimated bytes in memory of a dead letter or of a foreign record, in addition to its texts.
const RECORD_OVERHEAD: usize = 200;

const PARTITION: &str = "partition";
const OFFSET: &str = "offset";
const REASON: &str = "reason";
/// The time of the invalid record, in Unix milliseconds.
const ACCEPTED_AT: &str = "accepted_at";
/// The number of bytes of the value on the log.
const SIZE: &str = "size";
/// `true` if the dead letter has only the beginning of the key or of the value.
const TRUNCATED: &str = "truncated";

pub(super) struct DeadLetters {
    address: Address,
    producer: LazyProducer,
}

impl ConsumerContext for ClientStatus {}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(STORE, format!("dead letters: {error}"))
}

impl DeadLetters {
    pub(super) fn new(address: &Address) -> Self {
        Self { address: address.clone(), producer: LazyProducer::new(address) }
    }

    /// Sends dead letters. When this returns `Ok`, all dead letters are in every in-sync replica. A dead letter that is
    /// sent twice is on the topic twice, but a [reader](Self::open) returns it once.
    pub(super) async fn send(&self, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
        let (topic, now) = (self.address.dead_letter_topic(), UnixMillis::now());
        for dead_letters in dead_letters.chunks(SEND_BATCH) {
            let records = dead_letters.iter().map(|letter| to_record(&topic, letter, now));
            self.producer.send(records).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Opens a reader of the dead letters of a partition.
    pub(super) async fn open(&self, partition: Partition) -> Result<KafkaDeadLetters, StoreError> {
        let address = self.address.clone();
        let reader = spawn_blocking(move || TopicReader::open(&address, partition)).await.map_err(failed)??;
        Ok(KafkaDeadLetters { state: State::Open(Box::new(reader)) })
    }
}

/// Returns the record of a dead letter. The headers of the invalid record are not copied.
fn to_record<'a>(topic: &'a str, letter: &'a DeadLetter, now: UnixMillis) -> FutureRecord<'a, [u8], [u8]> {
    let DeadLetter { position, accepted_at, invalid, size, is_truncated } = letter;
    let key = &invalid.key[..invalid.key.len().min(MAX_KEY_BYTES)];
    let value = &invalid.value[..invalid.value.len().min(MAX_VALUE_BYTES)];
    let is_truncated = *is_truncated || key.len() < invalid.key.len() || value.len() < invalid.value.len();
    let reason = &invalid.reason[..invalid.reason.floor_char_boundary(MAX_REASON_BYTES)];
    let headers = [
        (PARTITION, position.partition.to_string()),
        (OFFSET, position.offset.to_string()),
        (REASON, reason.to_owned()),
        (ACCEPTED_AT, accepted_at.0.to_string()),
        (SIZE, size.to_string()),
        (TRUNCATED, is_truncated.to_string()),
    ];
    let headers = headers.iter().fold(OwnedHeaders::new_with_capacity(6), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_str()) })
    });
    FutureRecord::to(topic)
        .partition(i32::from(position.partition.0))
        .key(key)
        .payload(value)
        // Brokers may refuse a time in the future, and the settings of the two topics may differ.
        .timestamp(accepted_at.0.min(now.0))
        .headers(headers)
}

/// A reader of the dead letters of one partition.
pub(super) struct KafkaDeadLetters {
    state: State,
}

enum State {
    Open(Box<TopicReader>),
    AtEnd,
    /// A read has failed or was dropped, so it is unknown which dead letters were returned.
    Failed,
}

#[async_trait]
impl DeadLetterReader for KafkaDeadLetters {
    async fn next_part(&mut self) -> Result<Option<DeadLetterPart>, StoreError> {
        let mut reader = match std::mem::replace(&mut self.state, State::Failed) {
            State::Open(reader) => reader,
            State::AtEnd => {
                self.state = State::AtEnd;
                return Ok(None);
            }
            State::Failed => return Err(failed("an earlier read has failed")),
        };
        let read = spawn_blocking(move || {
            let part = reader.read_part()?;
            // The reader is dropped here at the end, because dropping a client blocks.
            Ok::<_, StoreError>(part.map(|part| (reader, part)))
        });
        let Some((reader, part)) = read.await.map_err(failed)?? else {
            self.state = State::AtEnd;
            return Ok(None);
        };
        self.state = State::Open(reader);
        Ok(Some(part))
    }
}

impl Drop for KafkaDeadLetters {
    /// Drops the client on another thread, because dropping a client waits for its threads to end.
    fn drop(&mut self) {
        if let State::Open(reader) = std::mem::replace(&mut self.state, State::AtEnd)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(reader));
        }
    }
}

/// Reads a partition of the dead-letter topic, up to the end that it had when the reader was opened. All methods block.
struct TopicReader {
    client: BaseConsumer<ClientStatus>,
    partition: Partition,
    /// The end of the partition when the reader was opened.
    end: i64,
    is_at_end: bool,
    /// The offsets of the dead letters that were returned. A dead letter may be on the topic several times.
    returned: HashSet<Offset>,
}

impl TopicReader {
    fn open(address: &Address, partition: Partition) -> Result<Self, StoreError> {
        let mut config = address.reader();
        config.set("enable.partition.eof", "true");
        let client: BaseConsumer<ClientStatus> =
            BaseConsumer::from_config_and_context(&config, ClientStatus::default()).map_err(failed)?;
        let (topic, number) = (address.dead_letter_topic(), i32::from(partition.0));
        let (start, end) = client.fetch_watermarks(&topic, number, REQUEST_TIMEOUT).map_err(failed)?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&topic, number, rdkafka::Offset::Offset(start)).map_err(failed)?;
        client.assign(&list).map_err(failed)?;
        Ok(Self { client, partition, end, is_at_end: start == end, returned: HashSet::new() })
    }

    /// Reads the next dead letters, until they have [`MAX_PART_BYTES`]. Returns `None` at the end.
    fn read_part(&mut self) -> Result<Option<DeadLetterPart>, StoreError> {
        if self.is_at_end {
            return Ok(None);
        }
        let (mut part, mut bytes) = (DeadLetterPart::default(), 0);
        while !self.is_at_end && bytes < MAX_PART_BYTES {
            match self.client.poll(REQUEST_TIMEOUT) {
                Some(Ok(message)) => {
                    self.is_at_end = message.offset() + 1 >= self.end;
                    // A message after the end can only arrive if there was no record just before the end.
                    if message.offset() >= self.end {
                        break;
                    }
                    bytes += RECORD_OVERHEAD + message.key_len() + message.payload_len();
                    match read(&message, self.partition) {
                        Ok(letter) if self.returned.insert(letter.position.offset) => part.letters.push(letter),
                        Ok(_) => {}
                        Err(problem) => {
                            let offset = Offset(u64::try_from(message.offset()).map_err(failed)?);
                            tracing::warn!(
                                topic = message.topic(),
                                partition = %self.partition,
                                %offset,
                                problem,
                                "a record is no dead letter and was skipped"
                            );
                            part.foreign.push(ForeignRecord { partition: self.partition, offset, problem });
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.is_at_end = true,
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(failed(format!("no response within {REQUEST_TIMEOUT:?}"))),
            }
        }
        Ok(Some(part))
    }
}

/// Reads a record of a partition of the dead-letter topic. Dead letters of earlier versions have no size and no time in
/// their headers: they are whole.
///
/// # Errors
/// Returns why the record is no dead letter of this partition.
fn read(message: &BorrowedMessage<'_>, partition: Partition) -> Result<DeadLetter, String> {
    let header = |key| header_of(message, key).ok_or_else(|| format!("it has no header {key:?}"));
    let number = |key| -> Result<u64, String> {
        header(key)?.parse().map_err(|_| format!("the header {key:?} is no whole number"))
    };
    let from = header(PARTITION)?;
    if from != partition.to_string() {
        return Err(format!("the header {PARTITION:?} is {from:?}, but it is on partition {partition}"));
    }
    let (key, value) = (message.key().unwrap_or_default().to_vec(), message.payload().unwrap_or_default().to_vec());
    let size = if header_of(message, SIZE).is_some() { number(SIZE)? } else { value.len() as u64 };
    let accepted_at = header_of(message, ACCEPTED_AT).and_then(|time| time.parse().ok());
    Ok(DeadLetter {
        position: LogPosition { partition, offset: Offset(number(OFFSET)?) },
        accepted_at: UnixMillis(accepted_at.unwrap_or_else(|| message.timestamp().to_millis().unwrap_or_default())),
        invalid: InvalidRecord { reason: header(REASON)?.to_owned(), key, value },
        size,
        is_truncated: header_of(message, TRUNCATED) == Some("true"),
    })
}
