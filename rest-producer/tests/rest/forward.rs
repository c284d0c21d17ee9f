//! The REST door before a gRPC door, which puts the votes on the log.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use rest_producer::{Forwarder, Patience};
use serde_json::{Value, json};
use service::{CancellationToken, Health, client::TrustedProxies, config::GrpcEndpoint, door::MeteredDoor};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::{sleep, timeout},
};
use votes::{Door, DoorKind, fake::FakeQueue};

use crate::client::{self, JSON, TestDoor, slug};

/// No test waits longer for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// A port that is a test's own, also while nobody listens there: bound, and never listening.
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

/// A gRPC door.
struct GrpcDoor {
    port: Port,
    log: Arc<FakeQueue>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl GrpcDoor {
    async fn open() -> Self {
        Self::open_at(Port::new(), FakeQueue::new()).await
    }

    async fn open_at(port: Port, log: Arc<FakeQueue>) -> Self {
        let listener = TcpListener::bind(port.address()).await.unwrap();
        let door = MeteredDoor::new(client::door(DoorKind::Grpc, &log), TrustedProxies::default());
        let shutdown = CancellationToken::new();
        let leaving = shutdown.clone();
        let server = async move { grpc_producer::run(listener, door, Health::default(), leaving).await.unwrap() };
        Self { port, log, shutdown, server: tokio::spawn(server) }
    }

    /// A REST door that passes votes on to this one, and its health.
    async fn forwarding(&self, bound: usize) -> (TestDoor, Health) {
        forwarding_to(self.port.address(), self.log.clone(), bound).await
    }

    async fn leave(self) -> Port {
        self.shutdown.cancel();
        timeout(LIMIT, self.server).await.unwrap().unwrap();
        self.port
    }
}

async fn forwarding_to(address: SocketAddr, log: Arc<FakeQueue>, bound: usize) -> (TestDoor, Health) {
    let to = GrpcEndpoint::try_from(format!("http://{address}")).unwrap();
    let health = Health::default();
    let forwarder = Forwarder::start(&to, bound, &health).unwrap();
    let door = Door::forwarding(DoorKind::Grpc, forwarder);
    (TestDoor::open_before(door, log, TrustedProxies::default(), Patience::default()).await, health)
}

/// What stays the same from one door and one try to the next.
fn essence(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        for changing in ["vote_id", "accepted_at", "partition", "instance", "request_id"] {
            fields.remove(changing);
        }
    }
    answer
}

#[tokio::test]
async fn a_vote_is_put_on_the_log_by_the_grpc_door() {
    let grpc = GrpcDoor::open().await;
    let (rest, _) = grpc.forwarding(100).await;
    let id = "0192f0c1-2b7a-7c3e-9a51-3f0d7c1b2a4e";
    let vote = format!(r#"{{"name":"Pink Floyd","album":"The Wall","year":"1979","rank":"5","vote_id":"{id}"}}"#);
    let answer = rest.vote(&vote).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let logged = grpc.log.log();
    let [logged] = logged.as_slice() else { panic!("{logged:?}") };
    assert_eq!(
        (logged.door, logged.name.as_str(), logged.vote_id.to_string().as_str()),
        (DoorKind::Grpc, "Pink Floyd", id)
    );
    assert_eq!((logged.album.as_deref(), logged.year, logged.rank), (Some("The Wall"), Some(1979), Some(5.0)));
    let receipt = answer.json();
    assert_eq!(receipt["vote_id"], id);
    assert_eq!(receipt["accepted_at"], logged.accepted_at.to_string());
}

#[tokio::test]
async fn an_idempotency_key_and_a_trace_go_along() {
    let grpc = GrpcDoor::open().await;
    let (rest, _) = grpc.forwarding(100).await;
    let key = ("Idempotency-Key", "order 66");
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    for headers in [[JSON, key], [JSON, trace]] {
        let answer = rest.post("/v1/votes", &headers, br#"{"name":"X"}"#).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let logged = grpc.log.log();
    assert_eq!(logged[0].vote_id, votes::VoteId::from_idempotency_key("order 66"));
    assert_eq!(logged[1].traceparent.as_ref().map(votes::TraceParent::as_str), Some(trace.1));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_vote_is_told_as_the_rest_door_tells_it() {
    let grpc = GrpcDoor::open().await;
    let ((forwarding, _), rest) = (grpc.forwarding(100).await, TestDoor::open().await);
    for wrong in [
        json!({}),
        // Empty, it would be no different from none in protobuf.
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
        assert_eq!(essence(through.json()), essence(directly.json()), "{body}");
        let vote_id = |answer: &client::Answer| answer.json().get("vote_id").is_some();
        assert_eq!(vote_id(&through), vote_id(&directly), "{body}");
    }
    assert!(grpc.log.log().is_empty());
}

#[tokio::test]
async fn a_batch_is_answered_in_order() {
    let grpc = GrpcDoor::open().await;
    let (rest, _) = grpc.forwarding(20_000).await;
    let votes: Vec<_> = (0..10_000).map(|number| json!({ "name": if number % 10 == 3 { "" } else { "X" } })).collect();
    let answer = rest.batch(&Value::from(votes).to_string()).await;
    let items = answer.items();
    assert_eq!(items.len(), 10_000);
    for (number, item) in items.iter().enumerate() {
        assert_eq!(slug(item) == "invalid-field", number % 10 == 3, "{number}: {item}");
    }
    assert_eq!(grpc.log.log().len(), 9_000);
}

#[tokio::test]
async fn what_a_leaving_grpc_door_did_not_answer_is_answered_by_the_next() {
    let first = GrpcDoor::open().await;
    let (rest, _) = first.forwarding(100).await;
    first.log.hold();
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = rest.connect().await;
        client.post("/v1/votes", &[JSON], format!(r#"{{"name":"Band {number}"}}"#).as_bytes()).await;
        clients.push(client);
    }
    rest.until_waiting(20).await;
    let kept = first.log.clone();
    let port = first.leave().await;
    let second = GrpcDoor::open_at(port, FakeQueue::new()).await;
    for client in &mut clients {
        let answer = client.answer().await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    // Where the first door's log has a vote too, it is the same vote.
    kept.release_all();
    let ids = |log: &FakeQueue| {
        let mut ids: Vec<_> = log.log().iter().map(|vote| vote.vote_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&second.log).len(), 20);
    assert!(kept.log().is_empty() || ids(&kept) == ids(&second.log));
}

#[tokio::test]
async fn without_a_grpc_door_votes_are_refused_and_the_health_says_why() {
    let port = GrpcDoor::open().await.leave().await;
    let address = port.address();
    let (rest, health) = forwarding_to(address, FakeQueue::new(), 100).await;
    let answer = rest.vote(r#"{"name":"X","vote_id":"0192f0c1-2b7a-7c3e-9a51-3f0d7c1b2a4e"}"#).await;
    assert_eq!((answer.status, slug(&answer.json())), (503, "log-unavailable"), "{answer:?}");
    assert_eq!(answer.json()["vote_id"], "0192f0c1-2b7a-7c3e-9a51-3f0d7c1b2a4e");
    assert!(answer.headers.contains_key("retry-after"));
    assert!(answer.json()["detail"].as_str().unwrap().contains(&address.to_string()), "{answer:?}");
    let report = health.report().await;
    assert!(!report.ready);
    assert!(report.checks[0].error.as_deref().unwrap_or_default().contains(&address.to_string()), "{report:?}");

    let _back = GrpcDoor::open_at(port, FakeQueue::new()).await;
    let recovered = async {
        while !health.report().await.ready {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, recovered).await.unwrap();
    assert_eq!(rest.vote(r#"{"name":"X"}"#).await.status, 202);
}

#[tokio::test]
async fn too_many_waiting_votes_are_refused_at_once() {
    let port = GrpcDoor::open().await.leave().await;
    let (rest, _) = forwarding_to(port.address(), FakeQueue::new(), 3).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut client = rest.connect().await;
        client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
        waiting.push(client);
    }
    // Which of them comes last is the sockets' affair: one of four is refused as full.
    let answer = rest.vote(r#"{"name":"X"}"#).await;
    let mut slugs = vec![slug(&answer.json()).to_owned()];
    for client in &mut waiting {
        slugs.push(slug(&client.answer().await.json()).to_owned());
    }
    slugs.sort();
    assert_eq!(slugs, ["log-unavailable", "log-unavailable", "log-unavailable", "queue-full"]);
}

#[tokio::test]
async fn votes_on_their_way_take_room_until_they_are_answered() {
    let grpc = GrpcDoor::open().await;
    let (rest, _) = grpc.forwarding(3).await;
    grpc.log.hold();
    let trace = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let mut clients = Vec::new();
    for headers in [[JSON].as_slice(), &[JSON], &[JSON, trace]] {
        let mut client = rest.connect().await;
        client.post("/v1/votes", headers, br#"{"name":"X"}"#).await;
        clients.push(client);
    }
    rest.until_waiting(3).await;
    assert_eq!(slug(&rest.vote(r#"{"name":"X"}"#).await.json()), "queue-full");
    grpc.log.release_all();
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 202);
    }
    assert_eq!(rest.vote(r#"{"name":"X"}"#).await.status, 202);
}

#[tokio::test]
async fn a_vote_is_counted_by_the_door_that_puts_it_on_the_log() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let grpc = GrpcDoor::open().await;
    let (rest, _) = grpc.forwarding(100).await;
    assert_eq!(rest.vote(r#"{"name":"X"}"#).await.status, 202);
    let metrics = recorder.handle().render();
    let count = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    assert_eq!(count(r#"ovation_votes_total{door="grpc",outcome="accepted"}"#), Some(1), "{metrics}");
    assert_eq!(count(r#"ovation_forwarded_votes_total{door="grpc",outcome="accepted"}"#), Some(1), "{metrics}");
    assert!(
        metrics.contains(r#"ovation_requests_total{door="forward",method="POST /v1/votes",status="202"} 1"#),
        "{metrics}"
    );
    assert!(!metrics.contains(r#"door="rest""#), "{metrics}");
}
