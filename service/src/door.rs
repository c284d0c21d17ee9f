//! What both doors do alike around [`votes::Door`]: measuring, and casting many votes without waiting for each.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use metrics::{Counter, Histogram};
use votes::{Accepted, Casting, Door, Reason, Refusal, VoteRequest};

use crate::traces::{self, Cast, Tracer};

/// What became of one vote.
pub type Outcome = Result<Accepted, Refusal>;

/// A door whose outcomes are measured: `ovation_votes_total{door,outcome}`, where the outcome is `accepted` or the slug of
/// the reason, and `ovation_cast_seconds{door}`, from the cast to the receipt. If votes are traced, each has a span that is as
/// long.
#[derive(Clone)]
pub struct MeteredDoor {
    door: Door,
    meters: Arc<Meters>,
    tracer: Option<Tracer>,
}

/// The handles, looked up once: a lookup by name and labels costs more than a vote's validation.
struct Meters {
    accepted: Counter,
    refused: [Counter; Reason::ALL.len()],
    cast_seconds: Histogram,
}

impl MeteredDoor {
    /// Measures a door. The process's telemetry must be set up before.
    pub fn new(door: Door) -> Self {
        let name = door.kind().as_str();
        let counter = |outcome| metrics::counter!("ovation_votes_total", "door" => name, "outcome" => outcome);
        metrics::describe_counter!("ovation_votes_total", "Votes cast, by door and outcome");
        metrics::describe_histogram!(
            "ovation_cast_seconds",
            metrics::Unit::Seconds,
            "From the cast of a vote to the log's receipt"
        );
        let meters = Meters {
            accepted: counter("accepted"),
            refused: Reason::ALL.map(|reason| counter(reason.slug())),
            cast_seconds: metrics::histogram!("ovation_cast_seconds", "door" => name),
        };
        Self { door, meters: Arc::new(meters), tracer: traces::tracer() }
    }

    /// Casts one vote and waits for its receipt.
    ///
    /// # Errors
    /// The refusal of the reader of the vote, or of the [door](Door::cast).
    pub async fn cast(&self, mut request: Result<VoteRequest, Refusal>) -> Outcome {
        let begun = self.begin(&mut request);
        let outcome = match request {
            Ok(request) => self.door.cast(request).await,
            Err(refusal) => Err(refusal),
        };
        self.end(begun, &outcome);
        outcome
    }

    /// Counts a refusal of something that never was a vote of its own.
    pub fn refuse(&self, refusal: &Refusal) {
        self.meters.refused[refusal.reason as usize].increment(1);
    }

    /// What can't be read as a vote has no span: it may be anybody's.
    fn begin(&self, request: &mut Result<VoteRequest, Refusal>) -> Begun {
        let span = match (&self.tracer, request) {
            (Some(tracer), Ok(request)) => tracer.cast(self.door.kind(), request),
            _ => None,
        };
        Begun { at: Instant::now(), span }
    }

    fn end(&self, begun: Begun, outcome: &Outcome) {
        match outcome {
            Ok(_) => {
                self.meters.accepted.increment(1);
                self.meters.cast_seconds.record(begun.at.elapsed());
            }
            Err(refusal) => self.refuse(refusal),
        }
        if let Some(span) = begun.span {
            span.end(outcome);
        }
    }
}

/// What is measured of a vote on its way.
struct Begun {
    at: Instant,
    span: Option<Box<Cast>>,
}

impl Begun {
    /// It was not cast after all.
    fn forget(self) {
        if let Some(span) = self.span {
            span.forget();
        }
    }
}

/// Votes of one batch or stream between the door and the log. They are handed to the log at once, and answered in the order
/// in which they were cast.
pub struct Line {
    door: MeteredDoor,
    places: VecDeque<Place>,
    casting: usize,
}

enum Place {
    Casting(Begun, Casting),
    Refused(Begun, Refusal),
}

/// The queue before the log is full, and some of the votes in it are of this line: take the next outcome, then cast again.
#[derive(Debug, PartialEq, Eq)]
pub struct Wait;

impl Line {
    /// The most votes that stand in one line. It bounds what one client can hold of memory and of the queue.
    pub const LONGEST: usize = 2_000;

    /// An empty line before a door.
    pub fn new(door: MeteredDoor) -> Self {
        Self { door, places: VecDeque::new(), casting: 0 }
    }

    /// Whether nobody stands in it.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether another vote may be cast; if not, take the next outcome first.
    pub fn has_room(&self) -> bool {
        self.places.len() < Self::LONGEST
    }

    /// Hands a vote to the log, or its refusal to the end of the line.
    ///
    /// # Errors
    /// [`Wait`] if the queue before the log is full while it has votes of this line. Nothing was cast then. Only where
    /// this line has none of its own to wait for is a full queue the vote's outcome.
    pub fn cast(&mut self, mut request: Result<VoteRequest, Refusal>) -> Result<(), Wait> {
        let begun = self.door.begin(&mut request);
        let place = match request.and_then(|request| self.door.door.submit(request)) {
            Ok(casting) => {
                self.casting += 1;
                Place::Casting(begun, casting)
            }
            Err(refusal) if refusal.reason == Reason::QueueFull && self.casting > 0 => {
                begun.forget();
                return Err(Wait);
            }
            Err(refusal) => Place::Refused(begun, refusal),
        };
        self.places.push_back(place);
        Ok(())
    }

    /// The outcome of the vote that stands first; `None` if nobody does.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let outcome = match self.places.front_mut() {
            Some(Place::Casting(_, casting)) => Some(ready!(Pin::new(casting).poll(context))),
            _ => None,
        };
        let (begun, outcome) = match (self.places.pop_front(), outcome) {
            (Some(Place::Casting(begun, _)), Some(outcome)) => {
                self.casting -= 1;
                (begun, outcome)
            }
            (Some(Place::Refused(begun, refusal)), _) => (begun, Err(refusal)),
            _ => return Poll::Ready(None),
        };
        self.door.end(begun, &outcome);
        Poll::Ready(Some(outcome))
    }

    /// As [`poll_next`](Self::poll_next). Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Outcome> {
        poll_fn(|context| self.poll_next(context)).await
    }
}
