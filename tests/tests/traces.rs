//! Traces: a vote has one trace, from the client to its counting. A vote has no trace if tracing is off.
#![allow(clippy::unwrap_used)]

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use proto::v1::{CastVoteRequest, CastVoteResponse};
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use serde_json::{Value, json};
use tests::{Addresses, System, TEST_TIMEOUT, command, wait_for};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status, transport::Server};

/// A collector that stores the spans that it receives.
struct Collector {
    address: SocketAddr,
    spans: Spans,
    _runtime: Runtime,
}

/// The received spans, each with the name of its service.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource_spans in request.into_inner().resource_spans {
            let resource = resource_spans.resource.unwrap_or_default();
            let service = text(&resource.attributes, "service.name").unwrap_or_default();
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start() -> Self {
        let (runtime, spans) = (Runtime::new().unwrap(), Spans::default());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(spans.clone());
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { address, spans, _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the spans of all traces.
    fn all(&self) -> Vec<Span> {
        self.spans.0.lock().unwrap().iter().map(|(_, span)| span.clone()).collect()
    }

    /// Waits for the two spans of a vote: `cast` and `count`. Returns them.
    fn spans_of(&self, vote_id: &str) -> (Span, Span) {
        let named = |name: &str| {
            let of_vote = |span: &Span| {
                span.name == name && text(&span.attributes, "messaging.message.id").as_deref() == Some(vote_id)
            };
            let mut spans: Vec<Span> = self.all().into_iter().filter(of_vote).collect();
            assert!(spans.len() < 2, "the vote has {} spans `{name}`", spans.len());
            spans.pop()
        };
        wait_for("the spans of the vote", || named("cast").is_some() && named("count").is_some());
        (named("cast").unwrap(), named("count").unwrap())
    }

    /// Waits for the span of the batch to which a `count` span links. Returns it.
    fn batch_of(&self, count: &Span) -> Span {
        let batch = |span: &Span| span.span_id == count.links[0].span_id;
        wait_for("the span of the batch", || self.all().iter().any(batch));
        self.all().into_iter().find(batch).unwrap()
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    let value = &attributes.iter().find(|attribute| attribute.key == key)?.value;
    value.as_ref()?.value.as_ref()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Any::StringValue(text) => Some(text.clone()),
        other => panic!("{key} is {other:?}"),
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Any::IntValue(number) => Some(*number),
        other => panic!("{key} is {other:?}"),
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Posts a vote with a `traceparent`.
fn post(system: &System, traceparent: &str, vote: &Value) -> (u16, Value) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TEST_TIMEOUT)).build().into();
    let request = agent.post(format!("http://{}/v1/votes", system.addresses.rest));
    let request = request.header("content-type", "application/json").header("traceparent", traceparent);
    let mut response = request.send(vote.to_string()).unwrap();
    (response.status().as_u16(), response.body_mut().read_json().unwrap())
}

/// Casts a vote over gRPC.
fn cast(system: &System, name: &str) -> CastVoteResponse {
    let url = format!("http://{}", system.addresses.grpc);
    let vote = CastVoteRequest { name: name.to_owned(), ..CastVoteRequest::default() };
    let call = async { VoteServiceClient::connect(url).await.unwrap().cast_vote(vote).await.unwrap().into_inner() };
    Runtime::new().unwrap().block_on(call)
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

/// Checks the two spans of a vote.
fn assert_linked(collector: &Collector, (cast, count): &(Span, Span), producer: &str, position: (u64, u64)) {
    assert_eq!(hex(&cast.trace_id), hex(&count.trace_id), "one trace");
    assert_eq!(hex(&count.parent_span_id), hex(&cast.span_id), "the parent of `count` is `cast`");
    assert_eq!(cast.kind, i32::from(SpanKind::Server));
    assert_eq!(count.kind, i32::from(SpanKind::Consumer));
    assert!(cast.start_time_unix_nano <= cast.end_time_unix_nano);
    assert!(cast.start_time_unix_nano < count.end_time_unix_nano);
    assert_eq!(text(&cast.attributes, "ovation.producer").as_deref(), Some(producer));
    assert_eq!(text(&cast.attributes, "ovation.contest").as_deref(), Some("bands"));
    assert_eq!(value(&count.attributes, "ovation.counted"), Some(&Any::BoolValue(true)));
    let batch = collector.batch_of(count);
    for span in [cast, count] {
        let attributes = &span.attributes;
        let partition = text(attributes, "messaging.destination.partition.id").unwrap();
        assert_eq!(partition, position.0.to_string());
        assert_eq!(number(attributes, "messaging.kafka.offset"), Some(i64::try_from(position.1).unwrap()));
    }
    assert_eq!(batch.name, "count batch");
    assert!(batch.links.iter().any(|link| link.span_id == cast.span_id && link.trace_id == cast.trace_id));
    assert_ne!(hex(&batch.trace_id), hex(&cast.trace_id), "the span of a batch has a trace of its own");
    assert_eq!(number(&count.attributes, "messaging.batch.message_count"), Some(1));
    assert_eq!(number(&batch.attributes, "messaging.batch.message_count"), Some(1));
    assert_eq!(number(&batch.attributes, "ovation.batch.votes"), Some(1));
    let (from, to) = ("ovation.batch.from_offset", "ovation.batch.to_offset");
    assert_eq!(number(&batch.attributes, from).map(|from| from + 1), number(&batch.attributes, to));
}

/// Casts votes of each kind, and checks the spans that the collector received.
fn assert_traced(mut system: System, collector: &Collector, log: &str) {
    // The client of this vote did not sample it, so it is not traced.
    let unsampled = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(post(&system, &format!("00-{unsampled}-b7ad6b7169203331-00"), &json!({ "name": "Genesis" })).0, 202);
    // The next vote must be in another batch.
    system.wait_until_counted();

    let (status, receipt) = post(&system, &format!("00-{TRACE}-{CLIENT}-01"), &json!({ "name": "Pink Floyd" }));
    assert_eq!(status, 202);
    let spans = collector.spans_of(receipt["vote_id"].as_str().unwrap());
    assert_eq!((hex(&spans.0.trace_id).as_str(), hex(&spans.0.parent_span_id).as_str()), (TRACE, CLIENT));
    let position = (receipt["partition"].as_u64().unwrap(), receipt["offset"].as_u64().unwrap());
    assert_linked(collector, &spans, "rest", position);
    assert_eq!(text(&spans.0.attributes, "messaging.system").as_deref(), Some(log));

    let receipt = cast(&system, "Queen");
    let spans = collector.spans_of(&receipt.vote_id);
    assert_eq!(spans.0.parent_span_id, Vec::<u8>::new(), "the client sent no parent");
    assert_ne!(hex(&spans.0.trace_id), TRACE);
    assert_linked(collector, &spans, "grpc", (receipt.partition.into(), receipt.offset));

    // A refused vote has a span with the reason. The status of this span is not an error.
    let nowhere = json!({ "name": "X", "contest": "nowhere" });
    assert_eq!(post(&system, &format!("00-{TRACE}-{CLIENT}-01"), &nowhere).0, 404);
    // The remaining spans are exported at the shutdown.
    assert!(system.stop().0.success());
    let spans = collector.all();
    let refused = spans.iter().find(|span| text(&span.attributes, "error.type").is_some()).unwrap();
    assert_eq!(text(&refused.attributes, "error.type").as_deref(), Some("unknown-contest"));
    assert_eq!(refused.status.as_ref().map_or(0, |status| status.code), i32::from(StatusCode::Unset));
    assert_eq!(spans.len(), 7, "{spans:#?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) != unsampled));
    assert!(collector.spans.0.lock().unwrap().iter().all(|(service, _)| service == "ovation"));
}

#[test]
fn a_vote_is_one_trace_from_the_client_to_its_counting() {
    let (collector, folder) = (Collector::start(), tempfile::tempdir().unwrap());
    let flags = ["--traces", &collector.url()];
    let system = System::start_with(&folder.path().join("data"), Addresses::free(), &flags);
    assert_traced(system, &collector, "embedded");
}

#[test]
fn only_the_configured_share_of_votes_without_a_parent_is_traced() {
    let (collector, folder) = (Collector::start(), tempfile::tempdir().unwrap());
    let mut program = command();
    program.env("OVATION_TRACES", collector.url()).env("OVATION_TRACES_RATIO", "0.2");
    let mut system = System::spawn(program, &folder.path().join("data"), Addresses::free(), &[]);
    system.wait_until_ready();
    let votes: Vec<_> = (0..1_000).map(|n| json!({ "name": format!("Band {}", n % 10) })).collect();
    assert_eq!(system.post_batch(&json!(votes)).0, 200);
    // The client sampled this vote.
    let (_, receipt) = post(&system, &format!("00-{TRACE}-{CLIENT}-01"), &json!({ "name": "Pink Floyd" }));
    collector.spans_of(receipt["vote_id"].as_str().unwrap());
    system.wait_until_counted();
    assert!(system.stop().0.success());
    let named = |name| collector.all().iter().filter(|span| span.name == name).count();
    // The range is the expected value, 200, plus or minus about eight standard deviations.
    assert!((100..300).contains(&named("cast")), "{}", named("cast"));
    assert_eq!(named("cast"), named("count"));
}

#[test]
fn nothing_is_traced_unless_it_is_configured() {
    let (collector, folder) = (Collector::start(), tempfile::tempdir().unwrap());
    let mut program = command();
    // OpenTelemetry libraries read these variables; Ovation must not.
    program.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    program.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url());
    let mut system = System::spawn(program, &folder.path().join("data"), Addresses::free(), &[]);
    system.wait_until_ready();
    let sent = format!("00-{TRACE}-{CLIENT}-01");
    assert_eq!(system.post(&json!({ "name": "Queen" })).0, 202);
    assert_eq!(post(&system, &sent, &json!({ "name": "Pink Floyd" })).0, 202);
    cast(&system, "Genesis");
    system.wait_until_counted();
    let metrics = ureq::get(format!("http://{}/metrics", system.addresses.admin)).call().unwrap();
    let metrics = metrics.into_body().read_to_string().unwrap();
    assert!(metrics.contains("ovation_votes_total") && !metrics.contains("ovation_trace_spans_total"), "{metrics}");
    assert!(system.stop().0.success());
    assert_eq!(collector.all(), []);
    let log = rusqlite::Connection::open(system.data.join("log.db")).unwrap();
    let mut records = log.prepare("SELECT traceparent FROM records").unwrap();
    let traces = records.query_map([], |row| row.get(0)).unwrap().collect::<Result<Vec<Option<String>>, _>>().unwrap();
    assert_eq!(traces.iter().filter(|trace| trace.is_none()).count(), 2);
    assert_eq!(traces.iter().flatten().collect::<Vec<_>>(), [&sent]);
}

#[test]
fn no_vote_waits_for_a_collector() {
    // One address without a listener, and one that never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = SocketAddr::from(([127, 0, 0, 1], tests::free_port()));
    for collector in [closed, silent.local_addr().unwrap()] {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("http://{collector}");
        let mut system = System::start_with(&folder.path().join("data"), Addresses::free(), &["--traces", &url]);
        // An export times out after three seconds.
        let begun = Instant::now();
        for n in 0..20 {
            assert_eq!(system.post(&json!({ "name": format!("Band {n}") })).0, 202);
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "20 votes took {:?}", begun.elapsed());
        // These votes have more spans than the queue of spans can hold.
        let votes: Vec<_> = (0..10_000).map(|n| json!({ "name": format!("Band {}", n % 10) })).collect();
        for _ in 0..2 {
            let (status, receipts) = system.post_batch(&json!(votes));
            assert_eq!(status, 200);
            assert!(receipts.as_array().unwrap().iter().all(|receipt| receipt["offset"].is_u64()));
        }
        wait_for("the votes to be counted", || system.total("bands") == 20_020);
        let lost_spans = || {
            let metrics = ureq::get(format!("http://{}/metrics", system.addresses.admin)).call().unwrap();
            let metrics = metrics.into_body().read_to_string().unwrap();
            let lines = metrics.lines().filter(|line| line.starts_with("ovation_trace_spans_total"));
            assert!(!metrics.contains("outcome=\"exported\"} 1"), "{metrics}");
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        wait_for("losses to be counted", || lost_spans() > 1_000);
        wait_for("losses to be logged", || system.log().contains("traces were lost"));
        let (status, took) = system.stop();
        assert!(status.success() && took < Duration::from_secs(6), "{status} after {took:?}");
    }
}

/// The same test on servers.
#[cfg(feature = "servers")]
mod on_servers {
    use tests::Servers;

    use super::*;

    #[test]
    fn a_trace_continues_through_kafka() {
        let (collector, folder, servers) = (Collector::start(), tempfile::tempdir().unwrap(), Servers::fresh());
        let (url, stores) = (collector.url(), servers.urls.flags());
        let flags = [&["--traces", &url], &stores[..]].concat();
        let system = System::start_with(&folder.path().join("data"), Addresses::free(), &flags);
        assert_traced(system, &collector, "kafka");
    }
}
