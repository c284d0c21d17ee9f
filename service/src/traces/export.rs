//! Exports spans to the collector in the background. No vote waits for an export. Spans that the collector does not
//! accept are counted and lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, counter, describe_counter};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use crate::config::ConfigError;

/// The maximum number of spans in the queue. A full queue takes about 10 MB.
const MAX_QUEUED_SPANS: usize = 16_384;

/// The maximum number of spans in one export.
const MAX_BATCH_SPANS: usize = 1_024;

/// How long an export waits for more spans after the first.
const LINGER: Duration = Duration::from_millis(500);

/// The longest time that an export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The shortest time between two warnings about lost spans.
const WARNING_INTERVAL: Duration = Duration::from_mins(1);

/// The bounded queue in front of the exporter.
pub(super) struct Queue {
    sender: mpsc::Sender<Item>,
    dropped: Counter,
    /// The number of spans that were lost since the last warning.
    lost: Arc<AtomicU64>,
}

enum Item {
    Span(Box<SpanData>),
    /// The task sends a message once every earlier span is exported or lost.
    Flush(oneshot::Sender<()>),
}

impl Queue {
    /// Starts the task that exports to the collector at `url`. The collector need not be reachable yet.
    pub(super) fn start(url: &str, resource: &Resource) -> Result<Self, ConfigError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(url).with_timeout(EXPORT_TIMEOUT).build();
        let mut exporter = exporter.map_err(|error| ConfigError::new("traces", error.to_string()))?;
        exporter.set_resource(resource);
        describe_counter!(
            "ovation_trace_spans_total",
            "Spans by outcome: the collector took them (exported) or not (failed), or the queue was full (dropped)"
        );
        let spans = |outcome| counter!("ovation_trace_spans_total", "outcome" => outcome);
        let (sender, receiver) = mpsc::channel(MAX_QUEUED_SPANS);
        let lost = Arc::<AtomicU64>::default();
        let task = ExportTask {
            receiver,
            exporter,
            exported: spans("exported"),
            failed: spans("failed"),
            lost: Arc::clone(&lost),
            last_warning: None,
        };
        tokio::spawn(task.run());
        Ok(Self { sender, dropped: spans("dropped"), lost })
    }

    /// Adds a span without waiting. If the queue is full, the span is lost.
    pub(super) fn put(&self, span: SpanData) {
        if self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            self.dropped.increment(1);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every span in the queue is exported or lost.
    pub(super) async fn flush(&self) {
        let (sender, flushed) = oneshot::channel();
        if self.sender.send(Item::Flush(sender)).await.is_ok() {
            // An error means that the task has ended, so there is nothing to wait for.
            let _ = flushed.await;
        }
    }
}

struct ExportTask {
    receiver: mpsc::Receiver<Item>,
    exporter: SpanExporter,
    exported: Counter,
    failed: Counter,
    lost: Arc<AtomicU64>,
    last_warning: Option<Instant>,
}

impl ExportTask {
    async fn run(mut self) {
        while let Some(first) = self.receiver.recv().await {
            let (spans, flush) = self.collect(first).await;
            if !spans.is_empty() {
                self.export(spans).await;
            }
            if let Some(flushed) = flush {
                // The caller of `flush` may have stopped waiting.
                let _ = flushed.send(());
            }
        }
    }

    /// Collects the spans of one export. Returns early after a flush, with the sender of the flush.
    async fn collect(&mut self, first: Item) -> (Vec<SpanData>, Option<oneshot::Sender<()>>) {
        let mut spans = Vec::new();
        let mut next = Some(first);
        let until = Instant::now() + LINGER;
        loop {
            match next {
                Some(Item::Span(span)) => spans.push(*span),
                Some(Item::Flush(sender)) => return (spans, Some(sender)),
                None => return (spans, None),
            }
            if spans.len() == MAX_BATCH_SPANS {
                return (spans, None);
            }
            next = match self.receiver.try_recv() {
                Ok(item) => Some(item),
                Err(_) => timeout_at(until, self.receiver.recv()).await.ok().flatten(),
            };
        }
    }

    async fn export(&mut self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        let outcome = timeout(EXPORT_TIMEOUT, self.exporter.export(spans)).await;
        let problem = match outcome {
            Ok(Ok(())) => {
                self.exported.increment(count);
                "the collector is too slow for the traced votes".to_owned()
            }
            Ok(Err(error)) => self.record_failure(count, error.to_string()),
            Err(_) => self.record_failure(count, format!("the collector did not answer within {EXPORT_TIMEOUT:?}")),
        };
        self.warn(&problem);
    }

    fn record_failure(&self, count: u64, problem: String) -> String {
        self.failed.increment(count);
        self.lost.fetch_add(count, Ordering::Relaxed);
        problem
    }

    /// Logs how many spans were lost since the last warning, if any, at most once per [`WARNING_INTERVAL`].
    fn warn(&mut self, problem: &str) {
        if self.last_warning.is_some_and(|last| last.elapsed() < WARNING_INTERVAL) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(spans = lost, problem, "traces were lost");
            self.last_warning = Some(Instant::now());
        }
    }
}
