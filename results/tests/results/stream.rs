//! What those who follow a contest as a stream of events can rely on.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use results::Limits;
use serde_json::Value;

use crate::{
    client::Events,
    memory::vote_for,
    server::{soon, start, start_with},
};

fn number(tally: &Value, field: &str) -> u64 {
    tally[field].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_tally_as_it_stands() {
    let server = start().await;
    let version = server.memory.count(&["Pink Floyd", "Queen", "Pink Floyd"]);
    let mut stream = server.watch("bands").await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    assert_eq!(stream.header("cache-control"), "no-cache");
    assert_eq!(stream.header("x-accel-buffering"), "no");
    let first = stream.next().await.unwrap();
    assert_eq!((first.kind.as_str(), first.id), ("tally", version.to_string()));
    assert_eq!(
        serde_json::from_str::<Value>(&first.data).unwrap(),
        server.get("/v1/contests/bands/tally").await.json()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counted_vote_is_shown_within_a_tenth_of_a_second() {
    let server = start().await;
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    let mut waits = Vec::new();
    for votes in 1..=15 {
        let counted = Instant::now();
        server.memory.count(&["Queen"]);
        stream.tally_where(|tally| number(tally, "total") == votes).await;
        waits.push(counted.elapsed());
    }
    waits.sort();
    // The median, since other tests have the machine, too.
    assert!(waits[7] < Duration::from_millis(100), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_holds_nobody_back_and_skips_to_the_newest() {
    let server = start().await;
    server.memory.count(&[&"x".repeat(90)]);
    server.memory.padding.store(2_000_000, Ordering::Relaxed);
    let mut slow = server.watch("bands").await;
    let mut fast = server.watch("bands").await;
    fast.tally().await;
    let mut newest = 0;
    for _ in 0..20 {
        newest = server.memory.count(&["x"]);
        fast.tally_where(|tally| number(tally, "version") == newest).await;
    }
    // 20 events have 80 MB; what was kept for the slow reader is what fits into buffers, and the newest.
    let mut seen = vec![number(&slow.tally().await, "version")];
    while seen.last() != Some(&newest) {
        seen.push(number(&slow.tally().await, "version"));
    }
    assert!(seen.is_sorted());
    assert!(seen.len() <= 8, "a slow reader got {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reading_serves_all_who_follow_a_contest() {
    let server = start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = server.watch("bands").await;
        stream.tally().await;
        streams.push(stream);
    }
    let before = server.memory.readings.lock().unwrap().len();
    server.memory.count(&["Queen"]);
    for stream in &mut streams {
        stream.tally_where(|tally| number(tally, "total") == 1).await;
    }
    let readings = server.memory.readings.lock().unwrap().len() - before;
    assert_eq!(readings, 1, "50 streams, one change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contest_that_is_slow_to_read_is_read_a_fifth_of_the_time() {
    let server = start().await;
    server.memory.reading_takes.store(40, Ordering::Relaxed);
    let mut stream = server.watch("bands").await;
    for _ in 0..6 {
        let version = server.memory.count(&["Queen"]);
        stream.tally_where(|tally| number(tally, "version") >= version).await;
    }
    let readings = server.memory.readings.lock().unwrap().clone();
    for pair in readings.windows(2) {
        let [(begun, ended), (next, _)] = pair else { unreachable!() };
        let (reading, rest) = (*ended - *begun, *next - *ended);
        // Timers and the test's clock differ by a little.
        assert!(rest + Duration::from_millis(2) >= reading * 4, "{readings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contest_that_nobody_follows_is_not_read() {
    let server = start().await;
    let stream = server.watch("bands").await;
    drop(stream);
    // The other contest's stream goes on, and shows that time passes.
    let mut other = server.watch("quiet").await;
    loop {
        let before = server.memory.readings.lock().unwrap().len();
        let version = server.memory.count(&["Queen"]);
        other.tally_where(|tally| number(tally, "version") >= version).await;
        // Once the contest is given up, only the other one is read.
        if server.memory.readings.lock().unwrap().len() - before == 1 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_is_shown_before_it_is_counted_and_never_below_what_is() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    server.memory.accept(41);
    let tally = stream.tally_where(|tally| number(tally, "accepted") == 42).await;
    assert_eq!((number(&tally, "processed"), number(&tally, "total")), (1, 1));
    // A log that does not show its newest writes yet.
    server.memory.lag(42);
    let tally = stream.tally_where(|tally| number(tally, "accepted") != 42).await;
    assert_eq!(number(&tally, "accepted"), number(&tally, "processed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_of_other_contests_do_not_flood_those_who_follow_a_quiet_one() {
    let server = start().await;
    let mut busy = server.watch("bands").await;
    let mut quiet = server.watch("quiet").await;
    let begun = Instant::now();
    let mut processed = 0;
    for _ in 0..30 {
        let version = server.memory.count(&["Queen"]);
        processed += 1;
        busy.tally_where(|tally| number(tally, "version") >= version).await;
    }
    let mut heard = 1;
    while number(&quiet.tally().await, "processed") < processed {
        heard += 1;
    }
    let most = begun.elapsed().as_millis() / 500 + 2;
    assert!(heard <= most, "{heard} events, of {processed} changes, in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_votes_has_a_heartbeat() {
    let server = start_with(Limits { heartbeat: Duration::from_millis(20), ..Limits::default() }).await;
    let mut stream = server.watch("bands").await;
    for _ in 0..3 {
        let beat = soon(stream.find(|event| event.kind == "heartbeat")).await;
        assert_eq!(beat.data, "{}");
        assert_eq!(beat.id, "", "a heartbeat must not move the last event's id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_there_may_be_are_refused_until_one_ends() {
    let server = start_with(Limits { streams: 2, heartbeat: Duration::from_millis(20), ..Limits::default() }).await;
    let first = server.watch("bands").await;
    let mut second = server.watch("quiet").await;
    second.tally().await;
    let refused = server.get("/v1/contests/bands/tally/stream").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("retry-after"), "1");
    drop(first);
    let mut again = soon(async {
        loop {
            let stream = server.watch("bands").await;
            if stream.status() == 200 {
                return stream;
            }
        }
    })
    .await;
    again.tally().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_band_of_any_script_passes_a_stream_unharmed() {
    let server = start().await;
    let name = "Guns N' \"Roses\" — ガールズ اختبار\u{2028}🎸";
    server.memory.count_votes(vec![(vote_for(name), votes::UnixMillis::now())]);
    let mut stream: Events = server.watch("bands").await;
    assert_eq!(stream.tally().await["bands"][0]["name"], name);
}
