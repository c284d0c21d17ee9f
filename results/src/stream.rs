//! `GET /v1/contests/{contest}/tally/stream`: the standing as server-sent events.
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! A `tally` comes at once and then with each change. A `heartbeat` says that the last one is how it stands now, so there
//! is none while the stores don't answer; then a comment keeps the connection, and the stream goes on by itself.

use std::{io::Cursor, sync::Arc, time::Duration};

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

use crate::{
    Limits, openapi,
    stores::{Stores, unavailable},
    tally::Standing,
    watch::{Follower, News, NotFollowed, Watch},
};

const HEARTBEAT: Bytes = Bytes::from_static(b"event: heartbeat\ndata: {}\n\n");

const NO_HEARTBEAT: Bytes = Bytes::from_static(b": a store does not answer, so the last tally may be old\n\n");

/// A contest's standing, live, as server-sent events.
///
/// `tally`, with the tallies' version as its id and the standing as its data: at once, and again within a tenth of a
/// second whenever votes are counted. A slow reader skips to the newest. `heartbeat`, with the data `{}`: every 5
/// seconds, while the standing shown last is current.
#[utoipa::path(
    tag = "contests",
    params(("contest" = String, Path, description = "The contest's slug", example = "bands")),
    responses(
        (status = 200, description = "Events without end", body = openapi::Tally, content_type = "text/event-stream"),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A store can't be read now, or there are too many streams", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[get("/v1/contests/<contest>/tally/stream")]
pub(crate) async fn tally_stream(
    contest: &str,
    stores: &State<Arc<Stores>>,
    watch: &State<Watch>,
    limits: &State<Limits>,
) -> Result<TallyStream, Problem> {
    let contest = stores.contest_at(contest)?;
    let follower = watch.follow(contest, "sse").await?;
    Ok(TallyStream { follower, heartbeat: limits.heartbeat })
}

impl From<NotFollowed> for Problem {
    fn from(reason: NotFollowed) -> Self {
        let detail = match reason {
            NotFollowed::Down(error) => return unavailable(&error),
            NotFollowed::Full => "there are as many streams as there may be; try again, or read the tally now and then",
            NotFollowed::Leaving => "this server is leaving; try again",
        };
        Self::plain(Status::ServiceUnavailable, detail)
    }
}

/// The event of a standing.
pub(crate) fn tally_event(standing: &Standing) -> Bytes {
    let data = serde_json::to_string(standing).expect("a standing has only text keys");
    format!("id: {}\nevent: tally\ndata: {data}\n\n", standing.tally.version).into()
}

/// A stream that ends when the server leaves.
pub(crate) struct TallyStream {
    follower: Follower,
    heartbeat: Duration,
}

impl TallyStream {
    fn events(self) -> impl Stream<Item = Bytes> {
        let Self { mut follower, heartbeat } = self;
        stream! {
            let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let event = select! {
                    news = follower.news() => match news {
                        News::Update(update) => update.event.clone(),
                        News::Down(_) => NO_HEARTBEAT,
                        News::Over => break,
                    },
                    _ = beats.tick() => if follower.is_current() { HEARTBEAT } else { NO_HEARTBEAT },
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
            // Asks nginx, and what behaves like it, to pass events on as they come.
            .raw_header("X-Accel-Buffering", "no")
            .streamed_body(ReaderStream::from(self.events().map(Cursor::new)))
            .ok()
    }
}
