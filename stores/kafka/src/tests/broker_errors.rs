//! What a producer responds after each error of a broker. The mock cluster of librdkafka returns the errors. The test
//! compares the responses with the table in `docs/stores.md`.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use futures::stream::{self, StreamExt};
use metrics::Gauge;
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use votes::{Accepted, Contests, Ingest, LogReader, LogWriter, Partition, ProducerKind, Reason, Refusal, VoteRequest};

use crate::{
    address::Address, group::Membership, log_reader::KafkaLogReader, log_writer::KafkaLogWriter, topic::Topic,
};

const DOCS: &str = include_str!("../../../../docs/stores.md");

/// The longest time that a producer may take to respond: ten times the promised two seconds, for a busy machine.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum number of mock clusters that run at the same time.
const MAX_CLUSTERS: usize = 6;

/// A fault of the cluster.
#[derive(Clone, Copy)]
enum Fault {
    /// The broker responds to every request of this kind with this error.
    ErrorResponse(RDKafkaApiKey, RDKafkaRespErr),
    /// No broker is reachable.
    Down,
    /// The broker responds after the time-out of the vote.
    Slow,
}

/// Returns all faults with their names in the table.
fn faults() -> BTreeMap<String, Fault> {
    use RDKafkaApiKey::{InitProducerId, Produce};
    use RDKafkaRespErr::*;
    let produce = [
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
        RD_KAFKA_RESP_ERR_UNKNOWN,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
        RD_KAFKA_RESP_ERR_INVALID_MSG,
        RD_KAFKA_RESP_ERR_INVALID_RECORD,
        RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS,
        RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
        RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
        RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
        RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
    ];
    let producer_id = [
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
    ];
    let produce = produce.map(|error| (name(error), Fault::ErrorResponse(Produce, error)));
    let producer_id = producer_id
        .map(|error| (format!("{} to InitProducerId", name(error)), Fault::ErrorResponse(InitProducerId, error)));
    let others = [("no broker".to_owned(), Fault::Down), ("a slow broker".to_owned(), Fault::Slow)];
    produce.into_iter().chain(producer_id).chain(others).collect()
}

/// Returns the name of an error in the documentation of Kafka.
fn name(error: RDKafkaRespErr) -> String {
    format!("{error:?}").trim_start_matches("RD_KAFKA_RESP_ERR_").to_owned()
}

/// What a producer does during a fault: a row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    then: String,
    http: u16,
    grpc: String,
}

/// Returns the rows of the table in the docs.
fn documented_rows() -> BTreeMap<String, Row> {
    let (_, section) = DOCS.split_once("### What a broker's error becomes").expect("the docs have the table");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let [name, then, http, grpc] = line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("a row with four columns: {line}")
        };
        let row = Row { then: then.to_owned(), http: http.parse().expect("a status"), grpc: grpc.to_owned() };
        (name.replace('`', ""), row)
    });
    rows.collect()
}

/// A mock cluster with a topic.
struct Trial {
    cluster: MockCluster<'static, DefaultProducerContext>,
    address: Address,
    topic: Topic,
}

impl Trial {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let address = Address::parse(&format!("kafka://{}/votes?partitions=1", cluster.bootstrap_servers())).unwrap();
        cluster.create_topic("votes", 1, 1).unwrap();
        let topic = Topic { name: "votes".to_owned(), partitions: 1, replication: 1, min_insync: 1 };
        Self { cluster, address, topic }
    }

    fn log_writer(&self) -> Arc<dyn LogWriter> {
        Arc::new(KafkaLogWriter::start(&self.address, self.topic.clone(), 1_000, Gauge::noop()).unwrap())
    }

    fn begin(&self, fault: Fault) {
        match fault {
            Fault::ErrorResponse(request, error) => self.cluster.request_errors(request, &vec![error; 10_000]),
            Fault::Down => self.cluster.broker_down(-1).unwrap(),
            Fault::Slow => self.cluster.broker_round_trip_time(-1, Duration::from_secs(10)).unwrap(),
        }
    }

    fn end(&self, fault: Fault) {
        match fault {
            Fault::ErrorResponse(request, _) => self.cluster.clear_request_errors(request),
            Fault::Down => self.cluster.broker_up(-1).unwrap(),
            Fault::Slow => self.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap(),
        }
    }
}

fn ingest(log_writer: &Arc<dyn LogWriter>) -> Ingest {
    Ingest::new(ProducerKind::Rest, Arc::new(Contests::default()), None, Arc::clone(log_writer))
}

async fn cast(ingest: &Ingest) -> Result<Accepted, Refusal> {
    let vote = VoteRequest {
        name: Some("Pink Floyd".to_owned()),
        vote_id: Some(Uuid::now_v7().to_string()),
        ..VoteRequest::default()
    };
    timeout(RESPONSE_TIMEOUT, ingest.cast(vote)).await.expect("the producer responds in time")
}

/// Casts votes until one is acknowledged. Returns how long this took.
async fn recover(ingest: &Ingest) -> Duration {
    let begun = Instant::now();
    while cast(ingest).await.is_err() {
        assert!(begun.elapsed() < 3 * RESPONSE_TIMEOUT, "votes are acknowledged again");
    }
    begun.elapsed()
}

/// Casts a vote during a fault, and returns what the producer did.
async fn observe(name: &str, fault: Fault) -> Row {
    let trial = Trial::new();
    // A Kafka producer requests its producer id when it starts, so a fault of this request begins first. The other
    // faults begin while the producer works.
    let is_early = matches!(fault, Fault::ErrorResponse(RDKafkaApiKey::InitProducerId, _));
    if is_early {
        trial.begin(fault);
    }
    let log_writer = trial.log_writer();
    let ingest = ingest(&log_writer);
    if !is_early {
        recover(&ingest).await;
        trial.begin(fault);
    }
    let begun = Instant::now();
    let refusal = cast(&ingest).await.expect_err("a vote that no broker confirmed is not acknowledged");
    let refused = begun.elapsed();
    assert!(refusal.vote_id.is_some() && refusal.detail.contains("is safe"), "{refusal}");
    // The producer is unhealthy while no vote is confirmed, and healthy as soon as one is.
    let problem = log_writer.check().await.expect_err(name).problem;
    if let Fault::ErrorResponse(RDKafkaApiKey::Produce, _) = fault {
        assert!(problem.contains("confirms no votes at the moment: "), "{name}: {problem}");
    }
    trial.end(fault);
    let recovered = recover(&ingest).await;
    log_writer.check().await.unwrap_or_else(|error| panic!("{name}: {error}"));
    println!("{name}: refused in {refused:?}, recovered in {recovered:?}: {}", refusal.detail);

    let is_timeout = ["MessageTimedOut", "confirm the vote within"].iter().any(|words| refusal.detail.contains(words));
    let then = if is_timeout { "tried again until the time-out" } else { "refused at once" };
    let grpc = match refusal.reason.grpc_code() {
        8 => "RESOURCE_EXHAUSTED",
        14 => "UNAVAILABLE",
        other => panic!("gRPC status {other}"),
    };
    assert_eq!(refusal.reason, Reason::LogUnavailable);
    Row { then: then.to_owned(), http: refusal.reason.http_status(), grpc: grpc.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broker_error_becomes_the_refusal_that_the_docs_list() {
    let trials = stream::iter(faults()).map(async |(name, fault)| {
        let row = observe(&name, fault).await;
        (name, row)
    });
    let observed: BTreeMap<String, Row> = trials.buffer_unordered(MAX_CLUSTERS).collect().await;
    let mut table = String::new();
    for (name, Row { then, http, grpc }) in &observed {
        writeln!(table, "| `{name}` | {then} | {http} | {grpc} |").unwrap();
    }
    assert_eq!(documented_rows(), observed, "docs/stores.md should have:\n{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_with_one_transient_error_is_on_the_log_once() {
    use RDKafkaRespErr::*;
    let trial = Trial::new();
    let ingest = ingest(&trial.log_writer());
    recover(&ingest).await;
    let log_reader = KafkaLogReader::start(&trial.address, trial.topic.clone(), Membership::Standalone).unwrap();
    for error in [
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        // The connection is closed.
        RD_KAFKA_RESP_ERR__TRANSPORT,
    ] {
        let before = log_reader.bounds(Partition(0)).await.unwrap().end;
        trial.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        let begun = Instant::now();
        let accepted = cast(&ingest).await.unwrap_or_else(|refusal| panic!("{error:?}: {refusal}"));
        println!("{}: acknowledged in {:?}", name(error), begun.elapsed());
        assert_eq!(accepted.receipt.position.offset, before);
        assert_eq!(log_reader.bounds(Partition(0)).await.unwrap().end, before.next(), "{error:?}");
    }
}
