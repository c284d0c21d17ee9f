//! What a door answers to each error of a broker: tried with librdkafka's mock cluster, and compared with the table in
//! `docs/stores.md`.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use futures::stream::{self, StreamExt};
use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;
use votes::{Accepted, Contests, Door, DoorKind, Partition, Reason, Refusal, VoteFeed, VoteQueue, VoteRequest};

use super::{KafkaFeed, KafkaQueue, address::Address, topic::Topic};
use crate::open::Membership;

const DOCS: &str = include_str!("../../../docs/stores.md");

/// How long a door may take, with an order of magnitude for a busy machine.
const ANSWER: Duration = Duration::from_secs(20);

/// How many clusters are tried at a time.
const AT_A_TIME: usize = 6;

/// What is done to the cluster.
#[derive(Clone, Copy)]
enum Fault {
    /// A broker answers every such request with an error.
    Answer(RDKafkaApiKey, RDKafkaRespErr),
    /// No broker can be reached.
    Down,
    /// Brokers answer after the time-out.
    Slow,
}

/// All faults, by their names in the table.
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
    let identity = [
        RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
    ];
    let produce = produce.map(|error| (name(error), Fault::Answer(Produce, error)));
    let identity =
        identity.map(|error| (format!("{} to InitProducerId", name(error)), Fault::Answer(InitProducerId, error)));
    let others = [("no broker".to_owned(), Fault::Down), ("a slow broker".to_owned(), Fault::Slow)];
    produce.into_iter().chain(identity).chain(others).collect()
}

/// Kafka's own name of an error.
fn name(error: RDKafkaRespErr) -> String {
    format!("{error:?}").trim_start_matches("RD_KAFKA_RESP_ERR_").to_owned()
}

/// What a door does about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    then: String,
    http: u16,
    grpc: String,
}

/// The rows of the table in the docs.
fn documented() -> BTreeMap<String, Row> {
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

/// A mock cluster with a topic, and a door in front of it.
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

    fn door(&self) -> Door {
        let queue = KafkaQueue::start(&self.address, self.topic.clone(), 1_000).unwrap();
        let queue: Arc<dyn VoteQueue> = Arc::new(queue);
        Door::new(DoorKind::Rest, Arc::new(Contests::default()), None, queue)
    }

    fn begin(&self, fault: Fault) {
        match fault {
            Fault::Answer(request, error) => self.cluster.request_errors(request, &vec![error; 10_000]),
            Fault::Down => self.cluster.broker_down(-1).unwrap(),
            Fault::Slow => self.cluster.broker_round_trip_time(-1, Duration::from_secs(10)).unwrap(),
        }
    }

    fn end(&self, fault: Fault) {
        match fault {
            Fault::Answer(request, _) => self.cluster.clear_request_errors(request),
            Fault::Down => self.cluster.broker_up(-1).unwrap(),
            Fault::Slow => self.cluster.broker_round_trip_time(-1, Duration::ZERO).unwrap(),
        }
    }
}

async fn cast(door: &Door) -> Result<Accepted, Refusal> {
    let vote = VoteRequest {
        name: Some("Pink Floyd".to_owned()),
        vote_id: Some(Uuid::now_v7().to_string()),
        ..VoteRequest::default()
    };
    timeout(ANSWER, door.cast(vote)).await.expect("the door answers in time")
}

/// Casts until a vote is acknowledged.
async fn recover(door: &Door) -> Duration {
    let begun = Instant::now();
    while cast(door).await.is_err() {
        assert!(begun.elapsed() < 3 * ANSWER, "votes are acknowledged again");
    }
    begun.elapsed()
}

/// A fault from beginning to end.
async fn observe(name: &str, fault: Fault) -> Row {
    let trial = Trial::new();
    // A producer asks for its identity when it starts, the rest befalls one that works.
    let is_early = matches!(fault, Fault::Answer(RDKafkaApiKey::InitProducerId, _));
    if is_early {
        trial.begin(fault);
    }
    let door = trial.door();
    if !is_early {
        recover(&door).await;
        trial.begin(fault);
    }
    let begun = Instant::now();
    let refusal = cast(&door).await.expect_err("what no broker has confirmed is not acknowledged");
    let answered = begun.elapsed();
    assert!(refusal.vote_id.is_some() && refusal.detail.contains("is safe"), "{refusal}");
    trial.end(fault);
    let recovered = recover(&door).await;
    println!("{name}: refused in {answered:?}, well again in {recovered:?}: {}", refusal.detail);

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
async fn each_broker_error_is_refused_as_the_docs_say() {
    let trials = stream::iter(faults()).map(async |(name, fault)| {
        let row = observe(&name, fault).await;
        (name, row)
    });
    let observed: BTreeMap<String, Row> = trials.buffer_unordered(AT_A_TIME).collect().await;
    let mut table = String::new();
    for (name, Row { then, http, grpc }) in &observed {
        writeln!(table, "| `{name}` | {then} | {http} | {grpc} |").unwrap();
    }
    assert_eq!(documented(), observed, "docs/stores.md should have:\n{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_that_met_one_transient_error_is_on_the_log_once() {
    use RDKafkaRespErr::*;
    let trial = Trial::new();
    let door = trial.door();
    recover(&door).await;
    let feed = KafkaFeed::start(&trial.address, trial.topic.clone(), Membership::Alone).unwrap();
    for error in [
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        // The connection is cut.
        RD_KAFKA_RESP_ERR__TRANSPORT,
    ] {
        let before = feed.bounds(Partition(0)).await.unwrap().end;
        trial.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        let begun = Instant::now();
        let accepted = cast(&door).await.unwrap_or_else(|refusal| panic!("{error:?}: {refusal}"));
        println!("{}: acknowledged in {:?}", name(error), begun.elapsed());
        assert_eq!(accepted.receipt.place.offset, before);
        assert_eq!(feed.bounds(Partition(0)).await.unwrap().end, before.next(), "{error:?}");
    }
}
