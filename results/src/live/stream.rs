//! `GET /v1/contests/{contest}/tally/stream`: the tally as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! A `tally` event is sent at once, and again after changes. A `heartbeat` event means that the last tally is current.
//! While the stores do not respond, comments are sent instead of heartbeats. The comments keep the connection open, and
//! the stream continues after the stores respond again.

use std::{io::Cursor, time::Duration};

use api::Tally;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use rocket::{
    Request, Response, State, get,
    http::{ContentType, Status},
    response::{
        Responder,
        stream::{ReaderStream, stream},
    },
};
use service::http::Problem;
use tokio::{
    select,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::watch::{SubscribeError, Subscriber, SubscriptionEvent, Subscriptions};
use crate::{
    contests::ContestNames,
    limits::Limits,
    problems::{StreamUnavailable, UnknownContest, unavailable},
};

const HEARTBEAT: Bytes = Bytes::from_static(b"event: heartbeat\ndata: {}\n\n");

const NO_HEARTBEAT: Bytes = Bytes::from_static(b": a store does not respond, so the last tally may be old\n\n");

/// Returns the tally of a contest as server-sent events.
///
/// The event `tally` is sent at once, and again after votes were counted, usually within a tenth of a second. The id of
/// the event is the version of the tallies, and the data is the tally. A slow client receives only the newest tally.
/// The event `heartbeat`, with the data `{}`, is sent every 5 seconds while the last tally is current.
#[utoipa::path(
    tag = "contests",
    params(("contest" = String, Path, description = "The slug of the contest", example = "bands")),
    responses(
        (status = 200, description = "A stream of events without end", body = Tally, content_type = "text/event-stream"),
        UnknownContest,
        StreamUnavailable,
    ),
)]
#[get("/v1/contests/<contest>/tally/stream")]
pub(crate) async fn tally_stream(
    contest: &str,
    contests: &State<ContestNames>,
    subscriptions: &State<Subscriptions>,
    limits: &State<Limits>,
) -> Result<TallyStream, Problem> {
    let contest = contests.in_path(contest)?;
    let subscriber = subscriptions.subscribe(contest, "sse").await?;
    Ok(TallyStream { subscriber, heartbeat: limits.heartbeat })
}

impl From<SubscribeError> for Problem {
    fn from(reason: SubscribeError) -> Self {
        let detail = match reason {
            SubscribeError::StoreUnavailable(error) => return unavailable(&error),
            SubscribeError::TooManyStreams => {
                "too many streams are open; try again, or request the tally at an interval instead"
            }
            SubscribeError::ShuttingDown => "the server is shutting down; try again",
        };
        Self::plain(Status::ServiceUnavailable, detail)
    }
}

/// A stream of events. The stream ends when the server shuts down.
pub(crate) struct TallyStream {
    subscriber: Subscriber,
    heartbeat: Duration,
}

impl TallyStream {
    fn events(self) -> impl Stream<Item = Bytes> {
        let Self { mut subscriber, heartbeat } = self;
        stream! {
            let mut heartbeats = interval_at(Instant::now() + heartbeat, heartbeat);
            heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let event = select! {
                    event = subscriber.next_event() => match event {
                        SubscriptionEvent::Update(update) => update.event.clone(),
                        SubscriptionEvent::StoreUnavailable(_) => NO_HEARTBEAT,
                        SubscriptionEvent::Closed => break,
                    },
                    _ = heartbeats.tick() => if subscriber.is_current() { HEARTBEAT } else { NO_HEARTBEAT },
                };
                yield event;
            }
        }
    }
}

impl<'r> Responder<'r, 'static> for TallyStream {
    fn respond_to(self, _: &'r Request<'_>) -> rocket::response::Result<'static> {
        Response::build()
            .header(ContentType::EventStream)
            .raw_header("Cache-Control", "no-cache")
            // This disables buffering in nginx and compatible proxies, which then pass on each event at once.
            .raw_header("X-Accel-Buffering", "no")
            .streamed_body(ReaderStream::from(self.events().map(Cursor::new)))
            .ok()
    }
}
