//! A bare producer, to compare the producers with: it sends similar records to a topic with the same client library and
//! the same guarantees, without a server. Prints one JSON object.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Parser;
use hdrhistogram::Histogram;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use serde_json::json;

/// Send records to a topic with the bare client library
#[derive(Parser)]
#[command(version, after_help = "Example:\n  produce --brokers 127.0.0.1:9092 --topic votes --rate 5000 --seconds 10")]
struct Flags {
    /// The brokers
    #[arg(long)]
    brokers: String,
    /// An existing topic
    #[arg(long)]
    topic: String,
    /// The number of partitions of the topic
    #[arg(long, default_value_t = 12)]
    partitions: u64,
    /// Records a second, or 0 for as many as Kafka accepts
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// The duration in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long the library collects records for a request, in milliseconds
    #[arg(long, default_value_t = 5)]
    linger: u64,
}

/// The value of a record. It is as long as the value of an average vote for a built-in band.
const VALUE: [u8; 64] = [b'v'; 64];

/// The maximum number of records that wait for their delivery report: the default of librdkafka.
const MAX_IN_FLIGHT: u64 = 100_000;

/// The pause after the records that are due were sent, and before a retry if the queue is full.
const PACING_INTERVAL: Duration = Duration::from_millis(1);

struct Deliveries {
    failed: AtomicU64,
    micros: Mutex<Histogram<u32>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, due: Box<Instant>) {
        match delivered {
            Ok(_) => {
                let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                let mut latencies = self.micros.lock().unwrap_or_else(PoisonError::into_inner);
                latencies.record(micros).expect("a histogram that resizes takes every latency");
            }
            Err(_) => _ = self.failed.fetch_add(1, Ordering::Relaxed),
        }
    }
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("produce: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<serde_json::Value, KafkaError> {
    let histogram = Histogram::new(3).expect("three digits are within a histogram's range");
    let deliveries = Deliveries { failed: AtomicU64::new(0), micros: Mutex::new(histogram) };
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", &flags.brokers)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", flags.linger.to_string())
        .set("queue.buffering.max.messages", MAX_IN_FLIGHT.to_string())
        .create_with_context(deliveries)?;
    // Do not measure the first record, because it waits for the producer id.
    send(&producer, flags, 0, Instant::now())?;
    producer.flush(Duration::from_secs(10))?;
    producer.context().micros.lock().unwrap_or_else(PoisonError::into_inner).reset();

    let begun = Instant::now();
    let duration = Duration::from_secs(flags.seconds);
    let total = flags.rate * flags.seconds;
    let mut sent = 0;
    while begun.elapsed() < duration {
        if flags.rate == 0 {
            sent += u64::from(send(&producer, flags, sent, Instant::now())?);
            continue;
        }
        let due = |record: u64| begun + Duration::from_secs_f64(record as f64 / flags.rate as f64);
        while sent < total && due(sent) <= Instant::now() {
            sent += u64::from(send(&producer, flags, sent, due(sent))?);
        }
        sleep(PACING_INTERVAL);
    }
    producer.flush(Duration::from_secs(10))?;
    let seconds = begun.elapsed().as_secs_f64();
    let context = producer.context();
    let micros = context.micros.lock().unwrap_or_else(PoisonError::into_inner);
    let millis = |quantile: f64| micros.value_at_quantile(quantile) as f64 / 1e3;
    Ok(json!({
        "acknowledged": micros.len(),
        "failed": context.failed.load(Ordering::Relaxed),
        "per_second": micros.len() as f64 / seconds,
        "p50_ms": millis(0.5),
        "p99_ms": millis(0.99),
    }))
}

/// Sends a record. Returns `false` if the queue of the client library is full.
fn send(producer: &ThreadedProducer<Deliveries>, flags: &Flags, number: u64, due: Instant) -> Result<bool, KafkaError> {
    let key = format!("bands|019c9a0e-5c1f-7d52-b5ae-{number:012x}");
    // Choose the partition like a hash of the key: records do not go to the partitions in turn.
    let partition = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % flags.partitions;
    let header = |key, value| Header { key, value: Some(value) };
    let headers = OwnedHeaders::new_with_capacity(5)
        .insert(header("ce_specversion", "1.0"))
        .insert(header("ce_type", "ovation.v1.VoteRecord"))
        .insert(header("ce_source", "rest"))
        .insert(header("ce_id", &key[6..]))
        .insert(header("content-type", "application/protobuf"));
    let record = BaseRecord::with_opaque_to(&flags.topic, Box::new(due))
        .partition(i32::try_from(partition).unwrap_or_default())
        .key(key.as_str())
        .payload(&VALUE[..])
        .headers(headers);
    match producer.send(record) {
        Ok(()) => Ok(true),
        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
            sleep(PACING_INTERVAL);
            Ok(false)
        }
        Err((error, _)) => Err(error),
    }
}
