//! Measures the outcomes of the votes that an [`Ingest`] casts.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use metrics::{Counter, Histogram};
use votes::{Accepted, Ingest, Reason, Refusal, Submission, VoteRequest, VoterHash};

use crate::{
    client_ip::{Network, TrustedProxies},
    heavy_hitters::HeavyHitters,
    traces::{self, CastSpan, Tracer},
};

/// The outcome of one vote: accepted by the vote log, or refused.
pub type Outcome = Result<Accepted, Refusal>;

/// An [`Ingest`] whose outcomes are measured:
/// - `ovation_votes_total{producer,outcome}` counts the votes. The outcome is `accepted` or the slug of the reason.
/// - `ovation_cast_seconds{producer}` is the time from the cast to the receipt.
/// - `ovation_heavy_hitter_ratio{producer,kind}` is the share of the most frequent voter and network. A vote is
///   recorded for its network if it can be parsed, even if it is refused: the votes of an attack are often refused. A
///   vote is recorded for its voter only if this producer validated it and the rules of the contest admit it.
///   Otherwise, the producer has no hash of the voter.
///
/// A producer that forwards votes uses `ovation_forwarded_votes_total` and `ovation_forward_seconds` instead of the
/// first two, because the producer that receives the votes has the first two. Otherwise, a sum over all producers would
/// count each forwarded vote twice.
///
/// If tracing is on, each traced vote has a span from its cast to its outcome.
#[derive(Clone)]
pub struct MeteredIngest {
    ingest: Ingest,
    meters: Arc<Meters>,
    heavy_hitters: Arc<HeavyHitters>,
    proxies: TrustedProxies,
    tracer: Option<Tracer>,
}

/// The handles of the metrics. They are looked up once: a lookup by name and labels costs more than validating a vote.
struct Meters {
    accepted: Counter,
    refused: [Counter; Reason::ALL.len()],
    cast_seconds: Histogram,
}

impl MeteredIngest {
    /// Creates an ingest that measures the votes of a producer behind these proxies. Set up the telemetry of the
    /// process first ([`telemetry::init`](crate::telemetry::init)).
    ///
    /// # Panics
    /// If this is called outside of a Tokio runtime.
    pub fn new(ingest: Ingest, proxies: TrustedProxies) -> Self {
        let name = ingest.kind().as_str();
        let (votes, seconds) = if ingest.is_forwarding() {
            ("ovation_forwarded_votes_total", "ovation_forward_seconds")
        } else {
            ("ovation_votes_total", "ovation_cast_seconds")
        };
        let counter = |outcome| metrics::counter!(votes, "producer" => name, "outcome" => outcome);
        metrics::describe_counter!(votes, "Votes cast, by producer and outcome");
        metrics::describe_histogram!(
            seconds,
            metrics::Unit::Seconds,
            "Time from the cast of a vote to the log's receipt"
        );
        let meters = Meters {
            accepted: counter("accepted"),
            refused: Reason::ALL.map(|reason| counter(reason.slug())),
            cast_seconds: metrics::histogram!(seconds, "producer" => name),
        };
        Self {
            ingest,
            meters: Arc::new(meters),
            heavy_hitters: HeavyHitters::new(name),
            proxies,
            tracer: traces::tracer(),
        }
    }

    /// Returns whether the votes are forwarded to another producer, which publishes them on the log.
    pub fn is_forwarding(&self) -> bool {
        self.ingest.is_forwarding()
    }

    /// Returns the network of the client that sent a request. `peer` is the other end of the connection, `forwarded`
    /// the values of the [`FORWARDED_FOR`](crate::client_ip::FORWARDED_FOR) headers. Returns `None` if the network is
    /// not known.
    pub fn network<'a>(
        &self,
        peer: Option<SocketAddr>,
        forwarded: impl IntoIterator<Item = &'a str>,
    ) -> Option<Network> {
        self.proxies.network(peer?.ip(), forwarded)
    }

    /// Ends the current window of the heavy hitters now. Tests use this instead of waiting for a minute.
    pub fn end_window(&self) {
        self.heavy_hitters.end_window();
    }

    /// Casts one vote from this network and waits for its receipt.
    ///
    /// # Errors
    /// The refusal in `request`, or the refusal of [`Ingest::cast`].
    pub async fn cast(&self, mut request: Result<VoteRequest, Refusal>, network: Option<Network>) -> Outcome {
        let open = self.begin_cast(&mut request);
        let outcome = match request {
            Ok(request) => {
                let Submission { voter, pending } = self.ingest.submit(request);
                self.heavy_hitters.record(1, network, voter);
                match pending {
                    Ok(pending) => pending.await,
                    Err(refusal) => Err(refusal),
                }
            }
            Err(refusal) => Err(refusal),
        };
        self.end_cast(open, &outcome);
        outcome
    }

    /// Counts the refusal of a whole batch or stream. Do not call this for a vote: the refusals of votes are counted
    /// automatically.
    pub fn count_refusal(&self, refusal: &Refusal) {
        self.meters.refused[refusal.reason as usize].increment(1);
    }

    /// Submits a vote to the log without waiting for its receipt, and without measuring it.
    pub(super) fn submit(&self, request: VoteRequest) -> Submission {
        self.ingest.submit(request)
    }

    /// Records, for the heavy hitters, `count` votes from one network and the known voters among them.
    pub(super) fn record_for_heavy_hitters(
        &self,
        count: u64,
        network: Option<Network>,
        voters: impl IntoIterator<Item = VoterHash>,
    ) {
        self.heavy_hitters.record(count, network, voters);
    }

    /// Starts the timer of a vote, and its span if the vote is traced.
    ///
    /// For a traced vote, this replaces the `traceparent` in `request` by the context of the span, so that the vote log
    /// carries it. A request that is already refused has no span.
    pub(super) fn begin_cast(&self, request: &mut Result<VoteRequest, Refusal>) -> OpenCast {
        let span = match (&self.tracer, request) {
            (Some(tracer), Ok(request)) => tracer.begin_cast_span(self.ingest.kind(), request),
            _ => None,
        };
        OpenCast { begun: Instant::now(), span }
    }

    /// Records the outcome of a vote in the metrics, and ends its span.
    pub(super) fn end_cast(&self, open: OpenCast, outcome: &Outcome) {
        match outcome {
            Ok(_) => {
                self.meters.accepted.increment(1);
                self.meters.cast_seconds.record(open.begun.elapsed());
            }
            Err(refusal) => self.count_refusal(refusal),
        }
        if let Some(span) = open.span {
            span.end(outcome);
        }
    }
}

/// A vote that has no outcome yet: its start time and its span.
pub(super) struct OpenCast {
    begun: Instant,
    span: Option<Box<CastSpan>>,
}

impl OpenCast {
    /// Discards the span, because the vote was not cast.
    pub(super) fn discard(self) {
        if let Some(span) = self.span {
            span.discard();
        }
    }
}
