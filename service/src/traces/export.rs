//! Takes spans to the collector, beside everything else: nobody waits for it, and what it can't take is counted and lost.

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

use crate::ConfigError;

/// The most spans that wait: some 10 MB.
const MOST_WAITING: usize = 16_384;

/// The most spans of one export, and how long an export waits for as many.
const MOST_EXPORTED: usize = 1_024;
const LINGER: Duration = Duration::from_millis(500);

/// How long the collector may take for an export.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is said that spans were lost.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// The bounded queue before the exporter.
pub(super) struct Queue {
    sender: mpsc::Sender<Item>,
    dropped: Counter,
    /// Since it was last said.
    lost: Arc<AtomicU64>,
}

enum Item {
    Span(Box<SpanData>),
    /// Answered once everything before it was exported, or is lost.
    Flush(oneshot::Sender<()>),
}

impl Queue {
    /// Starts exporting to the collector at `url`, whether it is there or not.
    pub(super) fn start(url: &str, resource: &Resource) -> Result<Self, ConfigError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(url).with_timeout(PATIENCE).build();
        let mut exporter = exporter.map_err(|error| ConfigError::new("traces", error.to_string()))?;
        exporter.set_resource(resource);
        describe_counter!(
            "ovation_trace_spans_total",
            "Spans the collector has (exported), did not take (failed), or that found the queue full (dropped)"
        );
        let spans = |outcome| counter!("ovation_trace_spans_total", "outcome" => outcome);
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let lost = Arc::<AtomicU64>::default();
        let task = Task {
            receiver,
            exporter,
            exported: spans("exported"),
            failed: spans("failed"),
            lost: Arc::clone(&lost),
            said: None,
        };
        tokio::spawn(task.run());
        Ok(Self { sender, dropped: spans("dropped"), lost })
    }

    /// Never waits.
    pub(super) fn put(&self, span: SpanData) {
        if self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            self.dropped.increment(1);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was put is exported or lost.
    pub(super) async fn flush(&self) {
        let (sender, flushed) = oneshot::channel();
        if self.sender.send(Item::Flush(sender)).await.is_ok() {
            // An error says that the task has ended, and then nothing is left to wait for.
            let _ = flushed.await;
        }
    }
}

struct Task {
    receiver: mpsc::Receiver<Item>,
    exporter: SpanExporter,
    exported: Counter,
    failed: Counter,
    lost: Arc<AtomicU64>,
    /// When it was last said that spans were lost.
    said: Option<Instant>,
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.receiver.recv().await {
            let (spans, flush) = self.collect(first).await;
            if !spans.is_empty() {
                self.export(spans).await;
            }
            if let Some(flushed) = flush {
                // Whoever asked may have lost patience.
                let _ = flushed.send(());
            }
        }
    }

    /// The spans of one export, up to a flush.
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
            if spans.len() == MOST_EXPORTED {
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
        let outcome = timeout(PATIENCE, self.exporter.export(spans)).await;
        let problem = match outcome {
            Ok(Ok(())) => {
                self.exported.increment(count);
                "more votes are traced than the collector takes".to_owned()
            }
            Ok(Err(error)) => self.fail(count, error.to_string()),
            Err(_) => self.fail(count, format!("no answer within {PATIENCE:?}")),
        };
        self.say(&problem);
    }

    fn fail(&self, count: u64, problem: String) -> String {
        self.failed.increment(count);
        self.lost.fetch_add(count, Ordering::Relaxed);
        problem
    }

    fn say(&mut self, problem: &str) {
        if self.said.is_some_and(|said| said.elapsed() < SAY_AGAIN) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(spans = lost, problem, "traces were lost");
            self.said = Some(Instant::now());
        }
    }
}
