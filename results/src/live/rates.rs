//! `GET /v1/rates` and `GET /v1/rates/settled`: the numbers of votes by window of acceptance time.

use std::sync::Arc;

use api::{RateWindow, SettledRates};
use rocket::{State, get, serde::json::Json};
use service::http::Problem;
use utoipa::IntoParams;
use votes::{Refusal, StoreError, UnixMillis, Window};

use super::stores::LiveStores;
use crate::{
    contests::ContestNames,
    parameters::{Parameters, Span},
    problems::{InvalidParameter, StoreUnavailable, UnknownContest, unavailable},
};

/// The maximum number of windows in one response.
const MAX_WINDOWS: i64 = 100_000;

/// The length of the time for which rates are returned, if the request has no `last`.
const DEFAULT_LAST: Span = Span::from_millis(60_000);

/// The documentation of the parameters that both routes have.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "parameters are read by their names")]
struct RateParameters {
    /// The size of a window: `10ms`, `1s` or `1m`; `1s` by default
    #[param(example = "1s")]
    every: Option<String>,
    /// Only votes for this contest
    #[param(example = "bands")]
    contest: Option<String>,
}

/// Returns the numbers of accepted votes by window of time, for one contest or for all contests.
///
/// The first window contains the time `now - last`. Windows without votes are omitted.
#[utoipa::path(
    tag = "rates",
    params(
        RateParameters,
        ("last" = Option<String>, Query, description = "How far back, for example `500ms`, `60s`, `5m`, `2h` or `1d`; `60s` by default. At least one window, at most 100 000 windows, and at most the retention of the windows (15 minutes for `10ms`, 24 hours for `1s`)", example = "60s"),
    ),
    responses(
        (status = 200, description = "The windows, sorted by time", body = Vec<RateWindow>),
        UnknownContest,
        InvalidParameter,
        StoreUnavailable,
    ),
)]
#[get("/v1/rates?<parameters..>")]
pub(crate) async fn rates(
    mut parameters: Parameters<'_>,
    contests: &State<ContestNames>,
    stores: &State<Arc<LiveStores>>,
) -> Result<Json<Vec<RateWindow>>, Problem> {
    let every = parameters.take("every")?.unwrap_or(Window::Second);
    let last = parameters.take("last")?.unwrap_or(DEFAULT_LAST);
    let contest = parameters.take::<String>("contest")?;
    parameters.refuse_unknown()?;
    let contest = contest.map(|contest| contests.named(Some(&contest))).transpose()?;
    let (from, to) = range(every, last, UnixMillis::now())?;
    let windows = stores.rates(contest, every, from, to).await.map_err(|error| unavailable(&error))?;
    Ok(Json(to_api(windows)))
}

/// Returns the numbers of accepted votes in settled windows. No later vote can join a settled window.
///
/// A window is settled after counting has passed the end that the vote log had three seconds after the window. To
/// follow the rates, set `from` of the next request to `before` of the last response.
#[utoipa::path(
    tag = "rates",
    params(
        RateParameters,
        ("from" = Option<i64>, Query, description = "The start: Unix time in milliseconds, within the retention of the windows (15 minutes for `10ms`, 24 hours for `1s`)"),
        ("last" = Option<String>, Query, description = "Instead of `from`: how far back, as for `/v1/rates`. Without `from` and `last`, the first window is the current window", example = "60s"),
    ),
    responses(
        (status = 200, description = "The settled windows, at most 100 000", body = SettledRates),
        UnknownContest,
        InvalidParameter,
        StoreUnavailable,
    ),
)]
#[get("/v1/rates/settled?<parameters..>")]
pub(crate) async fn settled_rates(
    mut parameters: Parameters<'_>,
    contests: &State<ContestNames>,
    stores: &State<Arc<LiveStores>>,
) -> Result<Json<SettledRates>, Problem> {
    let every = parameters.take("every")?.unwrap_or(Window::Second);
    let last = parameters.take::<Span>("last")?;
    let from = parameters.take::<i64>("from")?.map(UnixMillis);
    let contest = parameters.take::<String>("contest")?;
    parameters.refuse_unknown()?;
    let contest = contest.map(|contest| contests.named(Some(&contest))).transpose()?;
    let from = first_window_start(every, from, last, UnixMillis::now())?;
    let failed = |error: StoreError| unavailable(&error);
    let nothing = SettledRates { from: from.0, before: from.0, windows: Vec::new() };
    let Some(watermark) = stores.settled().await.map_err(failed)? else { return Ok(Json(nothing)) };
    let max = UnixMillis(from.0.saturating_add(MAX_WINDOWS * every.millis()));
    let before = every.start(watermark.before).min(max);
    if before <= from {
        return Ok(Json(nothing));
    }
    let windows = stores.rates(contest, every, from, before).await.map_err(failed)?;
    if !stores.is_settled(&watermark).await.map_err(failed)? {
        return Ok(Json(nothing));
    }
    Ok(Json(SettledRates { from: from.0, before: before.0, windows: to_api(windows) }))
}

fn to_api(windows: Vec<votes::RateWindow>) -> Vec<RateWindow> {
    windows.into_iter().map(|window| RateWindow { start: window.start.0, votes: window.votes }).collect()
}

/// Returns the start of the first requested window.
fn first_window_start(
    every: Window,
    from: Option<UnixMillis>,
    last: Option<Span>,
    now: UnixMillis,
) -> Result<UnixMillis, Refusal> {
    match (from, last) {
        (Some(_), Some(_)) => Err(Refusal::field("from", "is given together with last; give only one of them")),
        (None, Some(last)) => Ok(range(every, last, now)?.0),
        (None, None) => Ok(every.start(now)),
        (Some(from), None) => {
            let oldest = UnixMillis(every.retention().map_or(0, |retention| now.0 - Span::from(retention).millis()));
            if from < oldest {
                let detail = format!("is before {oldest}, and older windows of {every} are deleted");
                return Err(Refusal::field("from", detail));
            }
            Ok(every.start(from))
        }
    }
}

/// Returns the half-open range of time from the start of the window that contains `now - last` until after `now`.
fn range(every: Window, last: Span, now: UnixMillis) -> Result<(UnixMillis, UnixMillis), Refusal> {
    let refuse = |detail: String| Err(Refusal::field("last", detail));
    if last.millis() < every.millis() {
        return refuse(format!("must be at least one window, {every}"));
    }
    if let Some(retention) = every.retention().filter(|retention| last > Span::from(*retention)) {
        return refuse(format!("must be at most {} minutes for windows of {every}", retention.as_secs() / 60));
    }
    if last.millis() / every.millis() > MAX_WINDOWS {
        return refuse(format!("must be at most {MAX_WINDOWS} windows of {every}"));
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
    fn the_range_begins_with_the_window_of_the_oldest_time_and_ends_now() {
        assert_eq!(range_of("1s", "60s"), Ok((60_123, 1)));
        assert_eq!(range_of("10ms", "500ms"), Ok((503, 1)));
        // NOW is 20.123 s into its minute.
        assert_eq!(range_of("1m", "5m"), Ok((320_123, 1)));
    }

    #[test]
    fn last_is_at_least_a_window_and_at_most_the_retention_and_the_maximum_number_of_windows() {
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
