//! `GET /v1/rates`: votes by window of the time at which they were accepted.

use std::sync::Arc;

use rocket::{State, get, serde::json::Json};
use serde::Serialize;
use service::http::Problem;
use votes::{RateWindow, Refusal, StoreError, UnixMillis, Window};

use crate::{
    openapi,
    parameters::{Parameters, Span},
    stores::{Stores, unavailable},
};

/// The most windows that one answer has room for.
const MAX_WINDOWS: i64 = 100_000;

const DEFAULT_LAST: Span = Span::from_millis(60_000);

/// Votes by window of the time at which they were accepted, of one contest or all.
///
/// The first window is the one in which `now - last` lies. Windows without votes are left out.
#[utoipa::path(
    tag = "rates",
    params(
        ("every" = Option<String>, Query, description = "A window's size: `10ms`, `1s` or `1m`; `1s` if absent", example = "1s"),
        ("last" = Option<String>, Query, description = "How far back, like `500ms`, `60s`, `5m`, `2h`, `1d`; at least a window, at most 100 000 of them, and no longer than they are kept (`10ms` for 15 minutes, `1s` for 24 hours). `60s` if absent", example = "60s"),
        ("contest" = Option<String>, Query, description = "Only this contest", example = "bands"),
    ),
    responses(
        (status = 200, description = "Windows by time", body = Vec<openapi::RateWindow>),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The tallies can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[get("/v1/rates?<parameters..>")]
pub(crate) async fn rates(
    mut parameters: Parameters<'_>,
    stores: &State<Arc<Stores>>,
) -> Result<Json<Vec<RateWindow>>, Problem> {
    let every = parameters.take("every")?.unwrap_or(Window::Second);
    let last = parameters.take("last")?.unwrap_or(DEFAULT_LAST);
    let contest = parameters.take::<String>("contest")?;
    parameters.end()?;
    let contest = contest.map(|contest| stores.contest(Some(&contest))).transpose()?;
    let (from, to) = range(every, last, UnixMillis::now())?;
    stores.rates(contest, every, from, to).await.map(Json).map_err(|error| unavailable(&error))
}

/// Windows that no vote can join any more.
#[derive(Serialize)]
pub(crate) struct SettledRates {
    from: UnixMillis,
    before: UnixMillis,
    windows: Vec<RateWindow>,
}

/// Votes by window, of windows that no vote can join any more, for whoever follows them.
///
/// A window is settled when it has been over for a while and counting has passed all that was on the vote log then: some
/// seconds after its end, and later while counting is behind. Ask on with `from` as the last answer's `before`.
#[utoipa::path(
    tag = "rates",
    params(
        ("every" = Option<String>, Query, description = "A window's size: `10ms`, `1s` or `1m`; `1s` if absent", example = "1s"),
        ("from" = Option<i64>, Query, description = "Unix time in milliseconds, no longer ago than windows are kept (`10ms` for 15 minutes, `1s` for 24 hours)"),
        ("last" = Option<String>, Query, description = "In place of `from`: how far back, as for `/v1/rates`. Without either it begins with the window of now", example = "60s"),
        ("contest" = Option<String>, Query, description = "Only this contest", example = "bands"),
    ),
    responses(
        (status = 200, description = "Settled windows, at most 100 000", body = openapi::SettledRates),
        (status = 404, description = "There is no such contest", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "A store can't be read now", body = Problem, content_type = "application/problem+json"),
    ),
)]
#[get("/v1/rates/settled?<parameters..>")]
pub(crate) async fn settled_rates(
    mut parameters: Parameters<'_>,
    stores: &State<Arc<Stores>>,
) -> Result<Json<SettledRates>, Problem> {
    let every = parameters.take("every")?.unwrap_or(Window::Second);
    let last = parameters.take::<Span>("last")?;
    let from = parameters.take::<i64>("from")?.map(UnixMillis);
    let contest = parameters.take::<String>("contest")?;
    parameters.end()?;
    let contest = contest.map(|contest| stores.contest(Some(&contest))).transpose()?;
    let from = begin(every, from, last, UnixMillis::now())?;
    let failed = |error: StoreError| unavailable(&error);
    let nothing = SettledRates { from, before: from, windows: Vec::new() };
    let Some(mark) = stores.settled().await.map_err(failed)? else { return Ok(Json(nothing)) };
    let most = UnixMillis(from.0.saturating_add(MAX_WINDOWS * every.millis()));
    let before = every.start(mark.before).min(most);
    if before <= from {
        return Ok(Json(nothing));
    }
    let windows = stores.rates(contest, every, from, before).await.map_err(failed)?;
    if !stores.still_has(&mark).await.map_err(failed)? {
        return Ok(Json(nothing));
    }
    Ok(Json(SettledRates { from, before, windows }))
}

/// The start of the first settled window that is asked for.
fn begin(every: Window, from: Option<UnixMillis>, last: Option<Span>, now: UnixMillis) -> Result<UnixMillis, Refusal> {
    match (from, last) {
        (Some(_), Some(_)) => Err(Refusal::field("from", "is given, and so is last; give one of them")),
        (None, Some(last)) => Ok(range(every, last, now)?.0),
        (None, None) => Ok(every.start(now)),
        (Some(from), None) => {
            let oldest = UnixMillis(every.kept_for().map_or(0, |kept| now.0 - Span::from(kept).millis()));
            if from < oldest {
                let detail = format!("is before {oldest}; windows of {every} are not kept longer");
                return Err(Refusal::field("from", detail));
            }
            Ok(every.start(from))
        }
    }
}

/// The windows from the one that has `now - last` to the one that has `now`, half-open.
fn range(every: Window, last: Span, now: UnixMillis) -> Result<(UnixMillis, UnixMillis), Refusal> {
    let refuse = |detail: String| Err(Refusal::field("last", detail));
    if last.millis() < every.millis() {
        return refuse(format!("must be at least one window, {every}"));
    }
    if let Some(kept) = every.kept_for().filter(|kept| last > Span::from(*kept)) {
        return refuse(format!("windows of {every} are kept for {} minutes", kept.as_secs() / 60));
    }
    if last.millis() / every.millis() > MAX_WINDOWS {
        return refuse(format!("has more than {MAX_WINDOWS} windows of {every}"));
    }
    Ok((every.start(UnixMillis(now.0 - last.millis())), UnixMillis(now.0 + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_763_750_000_123);

    fn range_of(every: &str, last: &str) -> Result<(i64, i64), String> {
        range(every.parse().unwrap(), last.parse().unwrap(), NOW)
            .map(|(from, to)| (NOW.0 - from.0, to.0 - NOW.0))
            .map_err(|refusal| refusal.field.unwrap().into())
    }

    #[test]
    fn the_range_begins_with_the_window_of_the_oldest_moment_and_ends_with_now() {
        assert_eq!(range_of("1s", "60s"), Ok((60_123, 1)));
        assert_eq!(range_of("10ms", "500ms"), Ok((503, 1)));
        // NOW is 20.123 s into its minute.
        assert_eq!(range_of("1m", "5m"), Ok((320_123, 1)));
    }

    #[test]
    fn last_is_at_least_a_window_and_at_most_what_is_kept_and_fits() {
        for (every, last) in [("1s", "1s"), ("10ms", "15m"), ("1s", "24h"), ("1s", "1d"), ("1m", "100000m")] {
            assert!(range_of(every, last).is_ok(), "{last} of {every}");
        }
        for (every, last) in [
            ("1s", "999ms"),
            ("1m", "59s"),
            ("10ms", "0s"),
            ("10ms", "901s"),
            ("1s", "86401s"),
            ("1m", "100001m"),
            ("1m", "366d"),
        ] {
            assert_eq!(range_of(every, last), Err("last".to_owned()), "{last} of {every}");
        }
    }
}
