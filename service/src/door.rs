//! What both doors do alike around [`votes::Door`]: measuring, and casting many votes without waiting for each.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use metrics::{Counter, Histogram};
use votes::{Accepted, Casting, Door, Reason, Refusal, Submitted, VoteRequest, VoterHash};

use crate::{
    client::{Network, TrustedProxies},
    traffic::Traffic,
};

use crate::traces::{self, Cast, Tracer};

/// What became of one vote.
pub type Outcome = Result<Accepted, Refusal>;

/// A door whose outcomes are measured: `ovation_votes_total{door,outcome}`, where the outcome is `accepted` or the slug of
/// the reason, and `ovation_cast_seconds{door}`, from the cast to the receipt. It also sees
/// which voter and which network most votes come from: `ovation_heavy_hitter_ratio{door,kind}`. All votes that could be read
/// count there, refused or not, since what is wrong with traffic often is refused; voters as far as the rules of the
/// contest let their votes in, as nobody else's hash is known.
///
/// A door that passes votes on has `ovation_forwarded_votes_total` and `ovation_forward_seconds` instead, so that each vote
/// is counted by one door only.
///
/// If votes are traced, each has a span that is as long as the cast.
#[derive(Clone)]
pub struct MeteredDoor {
    door: Door,
    meters: Arc<Meters>,
    traffic: Arc<Traffic>,
    proxies: TrustedProxies,
    tracer: Option<Tracer>,
}

/// The handles, looked up once: a lookup by name and labels costs more than a vote's validation.
struct Meters {
    accepted: Counter,
    refused: [Counter; Reason::ALL.len()],
    cast_seconds: Histogram,
}

impl MeteredDoor {
    /// Measures a door that stands behind these proxies. The process's telemetry must be set up before.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(door: Door, proxies: TrustedProxies) -> Self {
        let name = door.kind().as_str();
        let (votes, seconds) = if door.is_forwarding() {
            ("ovation_forwarded_votes_total", "ovation_forward_seconds")
        } else {
            ("ovation_votes_total", "ovation_cast_seconds")
        };
        let counter = |outcome| metrics::counter!(votes, "door" => name, "outcome" => outcome);
        metrics::describe_counter!(votes, "Votes cast, by door and outcome");
        metrics::describe_histogram!(seconds, metrics::Unit::Seconds, "From the cast of a vote to the log's receipt");
        let meters = Meters {
            accepted: counter("accepted"),
            refused: Reason::ALL.map(|reason| counter(reason.slug())),
            cast_seconds: metrics::histogram!(seconds, "door" => name),
        };
        Self { door, meters: Arc::new(meters), traffic: Traffic::new(name), proxies, tracer: traces::tracer() }
    }

    /// Whether it is another door that puts the votes on the log.
    pub fn is_forwarding(&self) -> bool {
        self.door.is_forwarding()
    }

    /// The network that a request came from, by its peer's address and the lines of its
    /// [`FORWARDED_FOR`](crate::client::FORWARDED_FOR).
    pub fn network<'a>(
        &self,
        peer: Option<SocketAddr>,
        forwarded: impl IntoIterator<Item = &'a str>,
    ) -> Option<Network> {
        self.proxies.network(peer?.ip(), forwarded)
    }

    /// Ends the current minute of traffic now and tells of it, for tests that have no minute.
    pub fn end_window(&self) {
        self.traffic.end_window();
    }

    /// Casts one vote, which came from this network, and waits for its receipt.
    ///
    /// # Errors
    /// The refusal of the reader of the vote, or of the [door](Door::cast).
    pub async fn cast(&self, mut request: Result<VoteRequest, Refusal>, from: Option<Network>) -> Outcome {
        let begun = self.begin(&mut request);
        let outcome = match request {
            Ok(request) => {
                let Submitted { voter, casting } = self.door.submit(request);
                self.traffic.note(1, from, voter);
                match casting {
                    Ok(casting) => casting.await,
                    Err(refusal) => Err(refusal),
                }
            }
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
    from: Option<Network>,
    /// Votes, and the voters among them, that the traffic does not know of yet: they are noted together, when the next
    /// outcome is asked for. Whoever waits has asked, so none is lost when a client leaves.
    unnoted: u64,
    voters: Vec<VoterHash>,
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

    /// An empty line before a door, for votes from this network.
    pub fn new(door: MeteredDoor, from: Option<Network>) -> Self {
        Self { door, places: VecDeque::new(), casting: 0, from, unnoted: 0, voters: Vec::new() }
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
        let is_readable = request.is_ok();
        let Submitted { voter, casting } = match request {
            Ok(request) => self.door.door.submit(request),
            Err(refusal) => Submitted { voter: None, casting: Err(refusal) },
        };
        let place = match casting {
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
        self.unnoted += u64::from(is_readable);
        self.voters.extend(voter);
        self.places.push_back(place);
        Ok(())
    }

    /// The outcome of the vote that stands first; `None` if nobody does.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        self.note();
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

    fn note(&mut self) {
        if self.unnoted > 0 {
            self.door.traffic.note(mem::take(&mut self.unnoted), self.from, self.voters.drain(..));
        }
    }
}
