//! Traces votes for an OpenTelemetry collector, from the producer through the vote log to the counted batch.
//!
//! | span | covers | parent |
//! |---|---|---|
//! | `cast` | a vote, from the cast to the log's receipt | the client's `traceparent`, if it sent one |
//! | `count` | the same vote, while its batch is counted | the `traceparent` on the log: the `cast` span |
//! | `count batch` | the batch, with links to its traced votes | none |
//!
//! Tracing is off unless it is configured. If tracing is off, [`tracer`] returns `None`.
//!
//! The data of a span is created when the span ends. At its beginning, only the id is needed, because the log carries
//! the id of a `cast` span. So an open span is only its ids and its start time, and needs no lock. [`export`] sends the
//! spans to the collector.
//!
//! The names of attributes are only in this file, because OpenTelemetry's conventions for messaging are still in
//! development: <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.

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
    Accepted, Batch, Counted, CountedVotes, Offset, Partition, ProducerKind, Reason, Refusal, StoreError, TraceParent,
    VoteId, VoteRequest,
};

use self::export::Queue;
use crate::config::{Config, ConfigError};

// Attribute names of OpenTelemetry.
const MESSAGING_SYSTEM: &str = "messaging.system";
const MESSAGING_DESTINATION: &str = "messaging.destination.name";
const MESSAGING_PARTITION: &str = "messaging.destination.partition.id";
const MESSAGING_OFFSET: &str = "messaging.kafka.offset";
const MESSAGING_MESSAGE: &str = "messaging.message.id";
const MESSAGING_BATCH: &str = "messaging.batch.message_count";
const MESSAGING_OPERATION: &str = "messaging.operation.name";
const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
const ERROR: &str = "error.type";

// Our own attribute names.
const CONTEST: &str = "ovation.contest";
const PRODUCER: &str = "ovation.producer";
const IS_COUNTED: &str = "ovation.counted";
const BATCH_VOTES: &str = "ovation.batch.votes";
const BATCH_DUPLICATES: &str = "ovation.batch.duplicates";
const BATCH_FROM: &str = "ovation.batch.from_offset";
const BATCH_TO: &str = "ovation.batch.to_offset";

/// The maximum number of links of a span, which is OpenTelemetry's default limit. The `count` spans of further votes
/// still link to the batch.
const MAX_LINKS: usize = 128;

/// The tracer of this process, if tracing is configured.
static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Returns the tracer of this process, or `None` if votes are not traced. Set up the telemetry of the process first.
/// Call this once, not for each vote.
pub fn tracer() -> Option<Tracer> {
    TRACER.get().cloned()
}

/// Starts tracing, if it is configured. Call this once per process, within the Tokio runtime.
///
/// # Errors
/// If the collector's URL is invalid.
pub(crate) fn init(config: &Config, program: String) -> Result<(), ConfigError> {
    let Some(collector) = &config.traces else { return Ok(()) };
    let resource = Resource::builder()
        .with_service_name(program)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let queue = Queue::start(collector.as_str(), &resource)?;
    let (system, destination) = log_names(&config.vote_log);
    let state = TracerState {
        sampler: Sampler::TraceIdRatioBased(config.traces_ratio.get()),
        ids: RandomIdGenerator::default(),
        scope: InstrumentationScope::builder("ovation").with_version(env!("CARGO_PKG_VERSION")).build(),
        log: [KeyValue::new(MESSAGING_SYSTEM, system), KeyValue::new(MESSAGING_DESTINATION, destination)],
        queue,
    };
    tracing::info!(collector = collector.as_str(), ratio = config.traces_ratio.get(), "votes are traced");
    // If this is called twice, the first tracer remains in use.
    let _ = TRACER.set(Tracer(Arc::new(state)));
    Ok(())
}

/// Exports the spans in the queue. The spans that the collector does not accept within `timeout` are lost.
pub(crate) async fn flush(timeout: Duration) {
    if let Some(Tracer(state)) = TRACER.get() {
        // After a timeout, the process ends without the remaining spans.
        let _ = tokio::time::timeout(timeout, state.queue.flush()).await;
    }
}

/// Returns the messaging system and the destination, as the conventions define them, for the URL of a vote log.
fn log_names(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let path = rest.split_once('?').map_or(rest, |(path, _)| path);
    let topic = path.trim_start_matches('/').split_once('/').map_or("", |(_, topic)| topic);
    (scheme.to_owned(), if topic.is_empty() { "votes" } else { topic }.to_owned())
}

/// Traces votes. If a client sends a valid `traceparent`, its sampled flag decides whether the vote is traced. Of all
/// other votes, the configured share is traced.
#[derive(Clone)]
pub struct Tracer(Arc<TracerState>);

struct TracerState {
    /// Decides whether to trace a vote whose client sent no `traceparent`.
    sampler: Sampler,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
    /// The attributes of the vote log, which every span has.
    log: [KeyValue; 2],
    queue: Queue,
}

/// A span that has not ended.
struct OpenSpan {
    name: &'static str,
    kind: SpanKind,
    context: SpanContext,
    /// Invalid if the span begins a trace.
    parent: SpanContext,
    at: SystemTime,
}

impl Tracer {
    /// Begins the span of a vote that is cast, and sets the `traceparent` of `request` to it. If the vote is not
    /// traced, returns `None` and does not change `request`.
    pub fn begin_cast_span(&self, producer: ProducerKind, request: &mut VoteRequest) -> Option<Box<CastSpan>> {
        let client = request.traceparent.as_deref().and_then(TraceParent::parse);
        let span = match client.as_ref().and_then(context_of) {
            Some(client) if client.is_sampled() => self.begin_child("cast", SpanKind::Server, client),
            Some(_) => return None,
            None => {
                let trace = self.0.ids.new_trace_id();
                let kind = SpanKind::Server;
                let decided = self.0.sampler.should_sample(None, trace, "cast", &kind, &[], &[]).decision;
                if decided != SamplingDecision::RecordAndSample {
                    return None;
                }
                self.begin_in_trace(trace, "cast", kind, SpanContext::empty_context())
            }
        };
        request.traceparent = Some(header_of(&span.context));
        let contest = request.contest.clone();
        Some(Box::new(CastSpan { tracer: self.clone(), producer, contest, span: Some(span) }))
    }

    /// Begins the span of a batch that is counted. Returns `None` if no vote of the batch is traced.
    pub fn start_batch_span(&self, batch: &Batch) -> Option<BatchSpan> {
        let traced = batch.records.iter().filter_map(|record| {
            let vote = record.vote.as_ref().ok()?;
            let cast = context_of(vote.traceparent.as_ref()?).filter(SpanContext::is_sampled)?;
            Some(TracedVote { offset: record.offset, vote_id: vote.vote_id, cast })
        });
        let votes: Vec<TracedVote> = traced.collect();
        if votes.is_empty() {
            return None;
        }
        let span = self.begin_in_trace(
            self.0.ids.new_trace_id(),
            "count batch",
            SpanKind::Consumer,
            SpanContext::empty_context(),
        );
        let Batch { partition, from, to, ref records } = *batch;
        Some(BatchSpan { tracer: self.clone(), partition, from, to, records: records.len(), votes, span })
    }

    fn begin_child(&self, name: &'static str, kind: SpanKind, parent: SpanContext) -> OpenSpan {
        self.begin_in_trace(parent.trace_id(), name, kind, parent)
    }

    fn begin_in_trace(&self, trace: TraceId, name: &'static str, kind: SpanKind, parent: SpanContext) -> OpenSpan {
        let id = self.0.ids.new_span_id();
        let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE);
        OpenSpan { name, kind, context, parent, at: SystemTime::now() }
    }

    fn end_span(&self, span: OpenSpan, own: Vec<KeyValue>, links: Vec<SpanContext>, status: Status) {
        let mut attributes = own;
        attributes.extend_from_slice(&self.0.log);
        let mut span_links = SpanLinks::default();
        span_links.dropped_count = u32::try_from(links.len().saturating_sub(MAX_LINKS)).unwrap_or(u32::MAX);
        span_links.links = links.into_iter().take(MAX_LINKS).map(Link::with_context).collect();
        self.0.queue.put(SpanData {
            span_context: span.context,
            parent_span_id: span.parent.span_id(),
            parent_span_is_remote: span.parent.is_valid(),
            span_kind: span.kind,
            name: Cow::Borrowed(span.name),
            start_time: span.at,
            // If the clock was set back, the span must not end before it began.
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

/// The span of a vote that is cast. Call [`end`](Self::end) or [`discard`](Self::discard). If the span is dropped
/// before, it ends with the error `abandoned`: the caller stopped waiting for the receipt.
pub struct CastSpan {
    tracer: Tracer,
    producer: ProducerKind,
    contest: Option<String>,
    /// `None` after the span has ended.
    span: Option<OpenSpan>,
}

impl CastSpan {
    /// Ends the span with the outcome of the vote.
    pub fn end(mut self: Box<Self>, outcome: &Result<Accepted, Refusal>) {
        match outcome {
            Ok(accepted) => {
                let position = accepted.receipt.position;
                let attributes = vec![
                    KeyValue::new(MESSAGING_PARTITION, position.partition.to_string()),
                    offset(MESSAGING_OFFSET, position.offset),
                    KeyValue::new(MESSAGING_MESSAGE, accepted.vote_id.to_string()),
                    KeyValue::new(CONTEST, accepted.contest.as_str().to_owned()),
                ];
                self.finish(attributes, Status::Unset);
            }
            Err(refusal) => {
                let mut attributes = vec![KeyValue::new(ERROR, refusal.reason.slug())];
                attributes.extend(refusal.vote_id.map(|id| KeyValue::new(MESSAGING_MESSAGE, id.to_string())));
                attributes.extend(self.contest.take().map(|contest| KeyValue::new(CONTEST, contest)));
                // According to the conventions, a mistake of the client is not an error of the server's span.
                let status = match refusal.reason {
                    Reason::QueueFull | Reason::LogUnavailable => Status::error(refusal.detail.clone()),
                    _ => Status::Unset,
                };
                self.finish(attributes, status);
            }
        }
    }

    /// Discards the span, because the vote was not cast.
    pub fn discard(mut self: Box<Self>) {
        self.span = None;
    }

    fn finish(&mut self, mut attributes: Vec<KeyValue>, status: Status) {
        let Some(span) = self.span.take() else { return };
        attributes.push(KeyValue::new(PRODUCER, self.producer.as_str()));
        attributes.push(KeyValue::new(MESSAGING_OPERATION, "cast"));
        attributes.push(KeyValue::new(MESSAGING_OPERATION_TYPE, "send"));
        self.tracer.end_span(span, attributes, Vec::new(), status);
    }
}

impl Drop for CastSpan {
    fn drop(&mut self) {
        self.finish(vec![KeyValue::new(ERROR, "abandoned")], Status::Unset);
    }
}

/// The span of a batch that is counted, and the spans of its traced votes.
pub struct BatchSpan {
    tracer: Tracer,
    partition: Partition,
    from: Offset,
    to: Offset,
    records: usize,
    votes: Vec<TracedVote>,
    span: OpenSpan,
}

/// A traced vote of a batch.
struct TracedVote {
    offset: Offset,
    vote_id: VoteId,
    /// The context of the `cast` span, which the log carries.
    cast: SpanContext,
}

impl BatchSpan {
    /// Ends the span. If the batch was counted, this also creates a span for each traced vote of the batch. Otherwise,
    /// the votes will be in a later batch again.
    pub fn end(self, outcome: &Result<Counted, StoreError>) {
        let own = |more: &[KeyValue]| {
            let mut attributes = vec![
                offset(BATCH_FROM, self.from),
                offset(BATCH_TO, self.to),
                KeyValue::new(MESSAGING_OPERATION, "count"),
            ];
            attributes.extend_from_slice(more);
            self.with_common(attributes)
        };
        let (attributes, status) = match outcome {
            Ok(Counted::Done { votes, duplicates, .. }) => {
                self.end_votes(votes);
                let numbers = [number(BATCH_VOTES, votes.count()), number(BATCH_DUPLICATES, *duplicates)];
                (own(&numbers), Status::Unset)
            }
            Ok(Counted::PositionsChanged) => (own(&[KeyValue::new(ERROR, "disagreed")]), Status::Unset),
            Err(error) => (own(&[KeyValue::new(ERROR, error.store)]), Status::error(error.to_string())),
        };
        let links = self.votes.into_iter().map(|vote| vote.cast).collect();
        self.tracer.end_span(self.span, attributes, links, status);
    }

    fn end_votes(&self, counted: &CountedVotes) {
        let counted: HashSet<Offset> = counted.iter().map(|logged| logged.position.offset).collect();
        for vote in &self.votes {
            let mut span = self.tracer.begin_child("count", SpanKind::Consumer, vote.cast.clone());
            span.at = self.span.at;
            let attributes = vec![
                offset(MESSAGING_OFFSET, vote.offset),
                KeyValue::new(MESSAGING_MESSAGE, vote.vote_id.to_string()),
                KeyValue::new(MESSAGING_OPERATION, "count"),
                KeyValue::new(IS_COUNTED, counted.contains(&vote.offset)),
            ];
            self.tracer.end_span(span, self.with_common(attributes), vec![self.span.context.clone()], Status::Unset);
        }
    }

    /// Adds the attributes that the span of the batch and the spans of its votes share.
    fn with_common(&self, mut attributes: Vec<KeyValue>) -> Vec<KeyValue> {
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

/// Returns the context of a header, or `None` if one of its ids is zero.
fn context_of(header: &TraceParent) -> Option<SpanContext> {
    let mut parts = header.as_str().split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(parts.next()?, 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE)).filter(SpanContext::is_valid)
}

/// Formats a context as a header: <https://www.w3.org/TR/trace-context/#traceparent-header>.
fn header_of(context: &SpanContext) -> String {
    format!("00-{:032x}-{:016x}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsed_header_is_formatted_as_the_same_text() {
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
    fn the_url_of_a_log_gives_its_messaging_system_and_destination() {
        let owned = |system: &str, destination: &str| (system.to_owned(), destination.to_owned());
        assert_eq!(log_names("embedded:"), owned("embedded", "votes"));
        assert_eq!(log_names("kafka://a:9092,b:9092/ballots?partitions=3"), owned("kafka", "ballots"));
    }
}
