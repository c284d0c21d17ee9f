//! Traces of votes for an OpenTelemetry collector: from the door through the log to the counting batch.
//!
//! | span | is | parent |
//! |---|---|---|
//! | `cast` | a vote from the cast to the log's receipt | the client's `traceparent`, if it sent one |
//! | `count` | the same vote while its batch is counted | the `traceparent` on the log: the `cast` |
//! | `count batch` | the batch, linked with the votes that are traced | none |
//!
//! Off unless it is configured, and then there is no [`tracer`]: whoever traces asks once and keeps an empty `Option`.
//!
//! Spans are made whole at their end. What has to be known of a `cast` at its beginning is its id, since the log carries it;
//! so a span that is under way is two ids and a time, and nothing is locked. [`export`] takes spans to the collector.
//!
//! Names of attributes are in this file only: OpenTelemetry's conventions for messaging are still in development,
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.

mod export;

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::{
    Resource,
    trace::{IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample, SpanData, SpanEvents, SpanLinks},
};
use votes::{
    Accepted, Batch, Counted, DoorKind, Offset, Partition, Reason, Refusal, Standing, StoreError, TraceParent, VoteId,
    VoteRequest,
};

use self::export::Queue;
use crate::{Config, ConfigError};

// OpenTelemetry's names.
const MESSAGING_SYSTEM: &str = "messaging.system";
const MESSAGING_DESTINATION: &str = "messaging.destination.name";
const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
const MESSAGING_OFFSET: &str = "messaging.kafka.offset";
const MESSAGING_MESSAGE: &str = "messaging.message.id";
const MESSAGING_BATCH: &str = "messaging.batch.message_count";
const MESSAGING_OPERATION: &str = "messaging.operation.name";
const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
const ERROR: &str = "error.type";

// Our own.
const CONTEST: &str = "ovation.contest";
const DOOR: &str = "ovation.door";
const IS_COUNTED: &str = "ovation.counted";
const BATCH_VOTES: &str = "ovation.batch.votes";
const BATCH_DUPLICATES: &str = "ovation.batch.duplicates";
const BATCH_FROM: &str = "ovation.batch.from_offset";
const BATCH_TO: &str = "ovation.batch.to_offset";

/// The most links of a span: OpenTelemetry's own limit. The `count` spans of further votes still name the batch.
const MOST_LINKS: usize = 128;

/// The tracer of this process, once it is configured.
static TRACER: OnceLock<Tracer> = OnceLock::new();

/// The tracer of this process; `None` if nothing is traced. Telemetry must be set up before. Ask once, not for each vote.
pub fn tracer() -> Option<Tracer> {
    TRACER.get().cloned()
}

/// Starts tracing, if it is configured. Once per process, within its runtime.
///
/// # Errors
/// If the collector's URL is of no use.
pub(crate) fn init(config: &Config, program: String) -> Result<(), ConfigError> {
    let Some(collector) = &config.traces else { return Ok(()) };
    let resource = Resource::builder()
        .with_service_name(program)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let queue = Queue::start(collector.as_str(), &resource)?;
    let (system, destination) = log_names(&config.queue);
    let shared = Shared {
        sampler: Sampler::TraceIdRatioBased(config.traces_ratio.get()),
        ids: RandomIdGenerator::default(),
        scope: InstrumentationScope::builder("ovation").with_version(env!("CARGO_PKG_VERSION")).build(),
        log: [KeyValue::new(MESSAGING_SYSTEM, system), KeyValue::new(MESSAGING_DESTINATION, destination)],
        queue,
    };
    tracing::info!(collector = collector.as_str(), ratio = config.traces_ratio.get(), "votes are traced");
    // Whoever sets telemetry up twice keeps the first.
    let _ = TRACER.set(Tracer(Arc::new(shared)));
    Ok(())
}

/// Hands what was traced to the collector, for as long as `patience`. What it does not take by then is lost.
pub(crate) async fn flush(patience: Duration) {
    if let Some(Tracer(shared)) = TRACER.get() {
        // The queue has said what it lost.
        let _ = tokio::time::timeout(patience, shared.queue.flush()).await;
    }
}

/// What the conventions call the system and the destination, of a vote log's URL.
fn log_names(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let path = rest.split_once('?').map_or(rest, |(path, _)| path);
    let topic = path.trim_start_matches('/').split_once('/').map_or("", |(_, topic)| topic);
    (scheme.to_owned(), if topic.is_empty() { "votes" } else { topic }.to_owned())
}

/// Traces votes. A vote is traced if the client says so in its `traceparent`, or if it sent none and is of the configured
/// share.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    /// Decides on votes without a parent.
    sampler: Sampler,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
    /// What every span says of the vote log.
    log: [KeyValue; 2],
    queue: Queue,
}

/// A span that is under way.
struct Begun {
    name: &'static str,
    kind: SpanKind,
    context: SpanContext,
    /// Invalid if the span begins a trace.
    parent: SpanContext,
    at: SystemTime,
}

impl Tracer {
    /// Begins the span of a vote that is cast, and makes it what the vote carries on. `None` if the vote is not traced: then
    /// it is left as it is.
    pub fn cast(&self, door: DoorKind, request: &mut VoteRequest) -> Option<Box<Cast>> {
        let client = request.traceparent.as_deref().and_then(TraceParent::parse);
        let span = match client.as_ref().and_then(context_of) {
            Some(client) if client.is_sampled() => self.begin("cast", SpanKind::Server, client),
            Some(_) => return None,
            None => {
                let trace = self.0.ids.new_trace_id();
                let kind = SpanKind::Server;
                let decided = self.0.sampler.should_sample(None, trace, "cast", &kind, &[], &[]).decision;
                if decided != SamplingDecision::RecordAndSample {
                    return None;
                }
                self.begin_in(trace, "cast", kind, SpanContext::empty_context())
            }
        };
        request.traceparent = Some(header_of(&span.context));
        let contest = request.contest.clone();
        Some(Box::new(Cast { tracer: self.clone(), door, contest, span: Some(span) }))
    }

    /// Begins the span of a batch that is counted. `None` if none of its votes is traced.
    pub fn count(&self, batch: &Batch) -> Option<Counting> {
        let traced = batch.records.iter().filter_map(|record| {
            let vote = record.vote.as_ref().ok()?;
            let cast = context_of(vote.traceparent.as_ref()?).filter(SpanContext::is_sampled)?;
            Some(Traced { offset: record.offset, vote_id: vote.vote_id, cast })
        });
        let votes: Vec<Traced> = traced.collect();
        if votes.is_empty() {
            return None;
        }
        let span =
            self.begin_in(self.0.ids.new_trace_id(), "count batch", SpanKind::Consumer, SpanContext::empty_context());
        let Batch { partition, from, to, ref records } = *batch;
        Some(Counting { tracer: self.clone(), partition, from, to, records: records.len(), votes, span })
    }

    fn begin(&self, name: &'static str, kind: SpanKind, parent: SpanContext) -> Begun {
        self.begin_in(parent.trace_id(), name, kind, parent)
    }

    fn begin_in(&self, trace: TraceId, name: &'static str, kind: SpanKind, parent: SpanContext) -> Begun {
        let id = self.0.ids.new_span_id();
        let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE);
        Begun { name, kind, context, parent, at: SystemTime::now() }
    }

    fn end(&self, span: Begun, own: Vec<KeyValue>, links: Vec<SpanContext>, status: Status) {
        let mut attributes = own;
        attributes.extend_from_slice(&self.0.log);
        let mut span_links = SpanLinks::default();
        span_links.dropped_count = u32::try_from(links.len().saturating_sub(MOST_LINKS)).unwrap_or(u32::MAX);
        span_links.links = links.into_iter().take(MOST_LINKS).map(Link::with_context).collect();
        self.0.queue.put(SpanData {
            span_context: span.context,
            parent_span_id: span.parent.span_id(),
            parent_span_is_remote: span.parent.is_valid(),
            span_kind: span.kind,
            name: Cow::Borrowed(span.name),
            start_time: span.at,
            // A clock that was set back makes no span end before it began.
            end_time: SystemTime::now().max(span.at),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: span_links,
            status,
            instrumentation_scope: self.0.scope.clone(),
        });
    }
}

/// The span of a vote on its way to the log. If it is dropped, nobody waited for the receipt.
pub struct Cast {
    tracer: Tracer,
    door: DoorKind,
    contest: Option<String>,
    /// Until it has ended.
    span: Option<Begun>,
}

impl Cast {
    /// Ends it with what became of the vote.
    pub fn end(mut self: Box<Self>, outcome: &Result<Accepted, Refusal>) {
        match outcome {
            Ok(accepted) => {
                let place = accepted.receipt.place;
                let attributes = vec![
                    KeyValue::new(MESSAGING_PARTITION, place.partition.to_string()),
                    offset(MESSAGING_OFFSET, place.offset),
                    KeyValue::new(MESSAGING_MESSAGE, accepted.vote_id.to_string()),
                    KeyValue::new(CONTEST, accepted.contest.as_str().to_owned()),
                ];
                self.finish(attributes, Status::Unset);
            }
            Err(refusal) => {
                let mut attributes = vec![KeyValue::new(ERROR, refusal.reason.slug())];
                attributes.extend(refusal.vote_id.map(|id| KeyValue::new(MESSAGING_MESSAGE, id.to_string())));
                attributes.extend(self.contest.take().map(|contest| KeyValue::new(CONTEST, contest)));
                // By the conventions a client's mistake is no error of the server's span.
                let status = match refusal.reason {
                    Reason::QueueFull | Reason::LogUnavailable => Status::error(refusal.detail.clone()),
                    _ => Status::Unset,
                };
                self.finish(attributes, status);
            }
        }
    }

    /// Forgets it: the vote was not cast after all.
    pub fn forget(mut self: Box<Self>) {
        self.span = None;
    }

    fn finish(&mut self, mut attributes: Vec<KeyValue>, status: Status) {
        let Some(span) = self.span.take() else { return };
        attributes.push(KeyValue::new(DOOR, self.door.as_str()));
        attributes.push(KeyValue::new(MESSAGING_OPERATION, "cast"));
        attributes.push(KeyValue::new(MESSAGING_OPERATION_TYPE, "send"));
        self.tracer.end(span, attributes, Vec::new(), status);
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.finish(vec![KeyValue::new(ERROR, "abandoned")], Status::Unset);
    }
}

/// The span of a batch that is counted, and of its votes that are traced.
pub struct Counting {
    tracer: Tracer,
    partition: Partition,
    from: Offset,
    to: Offset,
    records: usize,
    votes: Vec<Traced>,
    span: Begun,
}

/// A vote of a batch.
struct Traced {
    offset: Offset,
    vote_id: VoteId,
    /// What the log carries.
    cast: SpanContext,
}

impl Counting {
    /// Ends it. Votes have spans of their own only in a batch that was counted: those of another are in one again.
    pub fn end(self, outcome: &Result<Counted, StoreError>) {
        let own = |more: &[KeyValue]| {
            let mut attributes = vec![
                offset(BATCH_FROM, self.from),
                offset(BATCH_TO, self.to),
                KeyValue::new(MESSAGING_OPERATION, "count"),
            ];
            attributes.extend_from_slice(more);
            self.shared(attributes)
        };
        let (attributes, status) = match outcome {
            Ok(Counted::Done { votes, duplicates, .. }) => {
                self.end_votes(votes);
                let numbers = [number(BATCH_VOTES, votes.count()), number(BATCH_DUPLICATES, *duplicates)];
                (own(&numbers), Status::Unset)
            }
            Ok(Counted::Disagreed) => (own(&[KeyValue::new(ERROR, "disagreed")]), Status::Unset),
            Err(error) => (own(&[KeyValue::new(ERROR, error.store)]), Status::error(error.to_string())),
        };
        let links = self.votes.into_iter().map(|vote| vote.cast).collect();
        self.tracer.end(self.span, attributes, links, status);
    }

    fn end_votes(&self, standing: &Standing) {
        let standing: HashSet<Offset> = standing.iter().map(|logged| logged.place.offset).collect();
        for vote in &self.votes {
            let mut span = self.tracer.begin("count", SpanKind::Consumer, vote.cast.clone());
            span.at = self.span.at;
            let attributes = vec![
                offset(MESSAGING_OFFSET, vote.offset),
                KeyValue::new(MESSAGING_MESSAGE, vote.vote_id.to_string()),
                KeyValue::new(MESSAGING_OPERATION, "count"),
                KeyValue::new(IS_COUNTED, standing.contains(&vote.offset)),
            ];
            self.tracer.end(span, self.shared(attributes), vec![self.span.context.clone()], Status::Unset);
        }
    }

    /// With what the batch's span and those of its votes have in common.
    fn shared(&self, mut attributes: Vec<KeyValue>) -> Vec<KeyValue> {
        attributes.push(KeyValue::new(MESSAGING_PARTITION, self.partition.to_string()));
        attributes.push(number(MESSAGING_BATCH, self.records as u64));
        attributes.push(KeyValue::new(MESSAGING_OPERATION_TYPE, "process"));
        attributes
    }
}

fn offset(key: &'static str, offset: Offset) -> KeyValue {
    number(key, offset.0)
}

fn number(key: &'static str, value: u64) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

/// The context of a header. Ids of zeros only are nobody's.
fn context_of(header: &TraceParent) -> Option<SpanContext> {
    let mut parts = header.as_str().split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

/// A context as a header: <https://www.w3.org/TR/trace-context/#traceparent-header>.
fn header_of(context: &SpanContext) -> String {
    format!("00-{:032x}-{:016x}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        for header in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-0000000000000000000000000000000a-000000000000000b-00",
        ] {
            let context = context_of(&TraceParent::parse(header).unwrap()).unwrap();
            assert_eq!(header_of(&context), header);
            assert_eq!(context.is_sampled(), header.ends_with("01"));
        }
        for zeros in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(context_of(&TraceParent::parse(zeros).unwrap()), None);
        }
    }

    #[test]
    fn a_log_is_named_as_the_conventions_have_it() {
        let names = |url| log_names(url);
        let owned = |system: &str, destination: &str| (system.to_owned(), destination.to_owned());
        assert_eq!(names("embedded:"), owned("embedded", "votes"));
        assert_eq!(names("kafka://a:9092,b:9092/ballots?partitions=3"), owned("kafka", "ballots"));
    }
}
