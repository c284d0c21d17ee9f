//! Tests of a REST producer that forwards votes to a gRPC producer, which publishes them on the log.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use rest_producer::{BodyTimeouts, Forwarder};
use serde_json::{Value, json};
use service::{CancellationToken, Health, client_ip::TrustedProxies, config::GrpcEndpoint, ingest::MeteredIngest};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::{sleep, timeout},
};
use votes::{Ingest, ProducerKind, fake::FakeLog};

use crate::client::{self, JSON, TestProducer, slug};

/// The longest time that a test waits for an event.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Reserves a port for a test, also while no server listens on it: this socket is bound, but does not listen.
struct Port(TcpSocket);

impl Port {
    fn new() -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self(port)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// A gRPC producer for tests.
struct TestGrpcProducer {
    port: Port,
    log: Arc<FakeLog>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl TestGrpcProducer {
    async fn open() -> Self {
        Self::open_at(Port::new(), FakeLog::new()).await
    }

    async fn open_at(port: Port, log: Arc<FakeLog>) -> Self {
        let listener = TcpListener::bind(port.address()).await.unwrap();
        let ingest = MeteredIngest::new(client::ingest(ProducerKind::Grpc, &log), TrustedProxies::default());
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let dependencies = grpc_producer::Dependencies { ingest, health: Health::default(), log_writer: None };
        let server = async move { grpc_producer::run(listener, dependencies, stop).await.unwrap() };
        Self { port, log, shutdown, server: tokio::spawn(server) }
    }

    /// Opens a REST producer that forwards votes to this gRPC producer. Also returns the health of the REST producer.
    async fn forwarding(&self, max_votes: usize) -> (TestProducer, Health) {
        forwarding_to(self.port.address(), self.log.clone(), max_votes).await
    }

    async fn shut_down(self) -> Port {
        self.shutdown.cancel();
        timeout(TEST_TIMEOUT, self.server).await.unwrap().unwrap();
        self.port
    }
}

async fn forwarding_to(address: SocketAddr, log: Arc<FakeLog>, max_votes: usize) -> (TestProducer, Health) {
    let to = GrpcEndpoint::try_from(format!("http://{address}")).unwrap();
    let health = Health::default();
    let forwarder = Forwarder::start(&to, max_votes, &health).unwrap();
    let ingest = Ingest::forwarding(ProducerKind::Grpc, forwarder);
    (TestProducer::open_with_ingest(ingest, log, TrustedProxies::default(), BodyTimeouts::default()).await, health)
}

/// Removes the fields that differ from one request to the next.
fn comparable(mut response: Value) -> Value {
    if let Some(fields) = response.as_object_mut() {
        for changing in ["vote_id", "accepted_at", "partition", "instance", "request_id"] {
            fields.remove(changing);
        }
    }
    response
}

#[tokio::test]
async fn the_grpc_producer_publishes_a_forwarded_vote_on_the_log() {
    let grpc = TestGrpcProducer::open().await;
    let (rest, _) = grpc.forwarding(100).await;
    let id = "0192f0c1-2b7a-7c3e-9a51-3f0d7c1b2a4e";
    let vote = format!(r#"{{"name":"Pink Floyd","album":"The Wall","year":"1979","rank":"5","vote_id":"{id}"}}"#);
    let response = rest.vote(&vote).await;
    assert_eq!(response.status, 202, "{response:?}");
    let logged = grpc.log.log();
    let [logged] = logged.as_slice() else { panic!("{logged:?}") };
    assert_eq!(
        (logged.producer, logged.name.as_str(), logged.vote_id.to_string().as_str()),
        (ProducerKind::Grpc, "Pink Floyd", id)
    );
    assert_eq!((logged.album.as_deref(), logged.year, logged.rank), (Some("The Wall"), Some(1979), Some(5.0)));
    let receipt = response.json();
    assert_eq!(receipt["vote_id"], id);
    assert_eq!(receipt["accepted_at"], logged.accepted_at.to_string());
}

#[tokio::test]
async fn an_idempotency_key_and_a_trace_are_forwarded() {
    let grpc = TestGrpcProducer::open().await;
    let (rest, _) = grpc.forwarding(100).await;
    let key = ("Idempotency-Key", "order 66");
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    for headers in [[JSON, key], [JSON, trace]] {
        let response = rest.post("/v1/votes", &headers, br#"{"name":"X"}"#).await;
        assert_eq!(response.status, 202, "{response:?}");
    }
    let logged = grpc.log.log();
    assert_eq!(logged[0].vote_id, votes::VoteId::from_idempotency_key("order 66"));
    assert_eq!(logged[1].traceparent.as_ref().map(votes::TraceParent::as_str), Some(trace.1));
}

#[tokio::test]
async fn an_invalid_vote_gets_the_same_problem_as_without_forwarding() {
    let grpc = TestGrpcProducer::open().await;
    let ((forwarding, _), rest) = (grpc.forwarding(100).await, TestProducer::open().await);
    for wrong in [
        json!({}),
        // The name is blank, not empty: in protobuf, an empty name is the same as no name.
        json!({ "name": " " }),
        json!({ "name": "x".repeat(101) }),
        json!({ "name": "a\u{7}b" }),
        json!({ "name": "X", "year": 1066 }),
        json!({ "name": "X", "year": 99_999_999_999_u64 }),
        json!({ "name": "X", "year": -99_999_999_999_i64 }),
        json!({ "name": "X", "rank": 100.5 }),
        json!({ "name": "X", "vote_id": "7" }),
        json!({ "name": "X", "contest": "nowhere" }),
        json!({ "name": "X", "contest": "No Slug" }),
        json!({ "name": "X", "contest": "finals" }),
        json!({ "name": "X", "contest": "fair" }),
        json!({ "name": "X", "contest": "over" }),
        json!({ "name": "X", "contest": "soon" }),
        json!({ "name": "X", "voter": "" }),
        json!({ "name": "X", "colour": "red" }),
    ] {
        let body = wrong.to_string();
        let (through, directly) = (forwarding.vote(&body).await, rest.vote(&body).await);
        assert!(directly.status >= 400);
        assert_eq!(through.status, directly.status, "{body}: {through:?}");
        assert_eq!(comparable(through.json()), comparable(directly.json()), "{body}");
        let vote_id = |response: &client::Response| response.json().get("vote_id").is_some();
        assert_eq!(vote_id(&through), vote_id(&directly), "{body}");
    }
    assert!(grpc.log.log().is_empty());
}

#[tokio::test]
async fn a_batch_has_its_outcomes_in_order() {
    let grpc = TestGrpcProducer::open().await;
    let (rest, _) = grpc.forwarding(20_000).await;
    let votes: Vec<_> = (0..10_000).map(|number| json!({ "name": if number % 10 == 3 { "" } else { "X" } })).collect();
    let response = rest.batch(&Value::from(votes).to_string()).await;
    let items = response.items();
    assert_eq!(items.len(), 10_000);
    for (number, item) in items.iter().enumerate() {
        assert_eq!(slug(item) == "invalid-field", number % 10 == 3, "{number}: {item}");
    }
    assert_eq!(grpc.log.log().len(), 9_000);
}

#[tokio::test]
async fn votes_without_an_outcome_are_sent_to_the_next_grpc_producer() {
    let first = TestGrpcProducer::open().await;
    let (rest, _) = first.forwarding(100).await;
    first.log.hold();
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = rest.connect().await;
        client.post("/v1/votes", &[JSON], format!(r#"{{"name":"Band {number}"}}"#).as_bytes()).await;
        clients.push(client);
    }
    rest.wait_until_pending(20).await;
    let first_log = first.log.clone();
    let port = first.shut_down().await;
    let second = TestGrpcProducer::open_at(port, FakeLog::new()).await;
    for client in &mut clients {
        let response = client.response().await;
        assert_eq!(response.status, 202, "{response:?}");
    }
    // If the log of the first producer has votes too, they are the same votes.
    first_log.release_all();
    let ids = |log: &FakeLog| {
        let mut ids: Vec<_> = log.log().iter().map(|vote| vote.vote_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&second.log).len(), 20);
    assert!(first_log.log().is_empty() || ids(&first_log) == ids(&second.log));
}

#[tokio::test]
async fn without_a_grpc_producer_votes_are_refused_and_the_health_check_has_the_reason() {
    let port = TestGrpcProducer::open().await.shut_down().await;
    let address = port.address();
    let (rest, health) = forwarding_to(address, FakeLog::new(), 100).await;
    let response = rest.vote(r#"{"name":"X","vote_id":"0192f0c1-2b7a-7c3e-9a51-3f0d7c1b2a4e"}"#).await;
    assert_eq!((response.status, slug(&response.json())), (503, "log-unavailable"), "{response:?}");
    assert_eq!(response.json()["vote_id"], "0192f0c1-2b7a-7c3e-9a51-3f0d7c1b2a4e");
    assert!(response.headers.contains_key("retry-after"));
    assert!(response.json()["detail"].as_str().unwrap().contains(&address.to_string()), "{response:?}");
    let report = health.report().await;
    assert!(!report.ready);
    assert!(report.checks[0].error.as_deref().unwrap_or_default().contains(&address.to_string()), "{report:?}");

    let _back = TestGrpcProducer::open_at(port, FakeLog::new()).await;
    let recovered = async {
        while !health.report().await.ready {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TEST_TIMEOUT, recovered).await.unwrap();
    assert_eq!(rest.vote(r#"{"name":"X"}"#).await.status, 202);
}

#[tokio::test]
async fn a_vote_above_the_maximum_number_is_refused_at_once() {
    let port = TestGrpcProducer::open().await.shut_down().await;
    let (rest, _) = forwarding_to(port.address(), FakeLog::new(), 3).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = rest.connect().await;
        client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
        waiting.push(client);
    }
    // The order in which the four votes arrive is not determined. One of them is refused as full.
    let response = rest.vote(r#"{"name":"X"}"#).await;
    let mut slugs = vec![slug(&response.json()).to_owned()];
    for client in &mut waiting {
        slugs.push(slug(&client.response().await.json()).to_owned());
    }
    slugs.sort();
    assert_eq!(slugs, ["log-unavailable", "log-unavailable", "log-unavailable", "queue-full"]);
}

#[tokio::test]
async fn sent_votes_without_an_outcome_count_towards_the_maximum_number() {
    let grpc = TestGrpcProducer::open().await;
    let (rest, _) = grpc.forwarding(3).await;
    grpc.log.hold();
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let mut clients = Vec::new();
    for headers in [[JSON].as_slice(), &[JSON], &[JSON, trace]] {
        let mut client = rest.connect().await;
        client.post("/v1/votes", headers, br#"{"name":"X"}"#).await;
        clients.push(client);
    }
    rest.wait_until_pending(3).await;
    assert_eq!(slug(&rest.vote(r#"{"name":"X"}"#).await.json()), "queue-full");
    grpc.log.release_all();
    for client in &mut clients {
        assert_eq!(client.response().await.status, 202);
    }
    assert_eq!(rest.vote(r#"{"name":"X"}"#).await.status, 202);
}

#[tokio::test]
async fn the_votes_metric_counts_a_forwarded_vote_once_at_the_grpc_producer() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let grpc = TestGrpcProducer::open().await;
    let (rest, _) = grpc.forwarding(100).await;
    assert_eq!(rest.vote(r#"{"name":"X"}"#).await.status, 202);
    let metrics = recorder.handle().render();
    let count = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    assert_eq!(count(r#"ovation_votes_total{producer="grpc",outcome="accepted"}"#), Some(1), "{metrics}");
    assert_eq!(count(r#"ovation_forwarded_votes_total{producer="grpc",outcome="accepted"}"#), Some(1), "{metrics}");
    assert!(
        metrics.contains(r#"ovation_requests_total{server="forward",method="POST /v1/votes",status="202"} 1"#),
        "{metrics}"
    );
    assert!(!metrics.contains(r#"producer="rest""#), "{metrics}");
}
