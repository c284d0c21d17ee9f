//! These tests check the promises of a stream of events to the subscribers of a contest.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use results::Limits;
use serde_json::Value;

use crate::{
    client::Events,
    memory::vote_for,
    server::{start, start_with, with_timeout},
};

fn number(tally: &Value, field: &str) -> u64 {
    tally[field].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_current_tally() {
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
    // The test uses the median, because other tests run on the machine at the same time.
    assert!(waits[7] < Duration::from_millis(100), "{waits:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_delays_no_other_client_and_skips_to_the_newest_tally() {
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
    // 20 events have 80 MB. The slow client receives the events that fit into the buffers, and the newest event.
    let mut versions = vec![number(&slow.tally().await, "version")];
    while versions.last() != Some(&newest) {
        versions.push(number(&slow.tally().await, "version"));
    }
    assert!(versions.is_sorted());
    assert!(versions.len() <= 8, "a slow client received {versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_read_serves_all_subscribers_of_a_contest() {
    let server = start().await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut stream = server.watch("bands").await;
        stream.tally().await;
        streams.push(stream);
    }
    let before = server.memory.reads.lock().unwrap().len();
    server.memory.count(&["Queen"]);
    for stream in &mut streams {
        stream.tally_where(|tally| number(tally, "total") == 1).await;
    }
    let reads = server.memory.reads.lock().unwrap().len() - before;
    assert_eq!(reads, 1, "50 streams, one change");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_a_slow_contest_take_at_most_a_fifth_of_the_time() {
    let server = start().await;
    server.memory.read_delay_ms.store(40, Ordering::Relaxed);
    let mut stream = server.watch("bands").await;
    for _ in 0..6 {
        let version = server.memory.count(&["Queen"]);
        stream.tally_where(|tally| number(tally, "version") >= version).await;
    }
    let reads = server.memory.reads.lock().unwrap().clone();
    for pair in reads.windows(2) {
        let [(begun, ended), (next, _)] = pair else { unreachable!() };
        let (duration, pause) = (*ended - *begun, *next - *ended);
        // Timers and the clock of the test may differ slightly.
        assert!(pause + Duration::from_millis(2) >= duration * 4, "{reads:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contest_without_subscribers_is_not_read() {
    let server = start().await;
    let stream = server.watch("bands").await;
    drop(stream);
    // The stream of the other contest continues, and shows that time passes.
    let mut other = server.watch("quiet").await;
    loop {
        let before = server.memory.reads.lock().unwrap().len();
        let version = server.memory.count(&["Queen"]);
        other.tally_where(|tally| number(tally, "version") >= version).await;
        // Once the task of the first contest has ended, only the other contest is read.
        if server.memory.reads.lock().unwrap().len() - before == 1 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_votes_are_shown_before_they_are_counted_and_are_never_fewer_than_the_counted_votes() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    server.memory.accept(41);
    let tally = stream.tally_where(|tally| number(tally, "accepted") == 42).await;
    assert_eq!((number(&tally, "processed"), number(&tally, "total")), (1, 1));
    // The newest records of the log are not visible yet.
    server.memory.hide_newest(42);
    let tally = stream.tally_where(|tally| number(tally, "accepted") != 42).await;
    assert_eq!(number(&tally, "accepted"), number(&tally, "processed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_of_other_contests_do_not_flood_the_subscribers_of_a_quiet_contest() {
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
    let mut received = 1;
    while number(&quiet.tally().await, "processed") < processed {
        received += 1;
    }
    let max = begun.elapsed().as_millis() / 500 + 2;
    assert!(received <= max, "{received} events for {processed} changes in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_votes_has_a_heartbeat() {
    let server = start_with(Limits { heartbeat: Duration::from_millis(20), ..Limits::default() }).await;
    let mut stream = server.watch("bands").await;
    for _ in 0..3 {
        let event = with_timeout(stream.find(|event| event.kind == "heartbeat")).await;
        assert_eq!(event.data, "{}");
        assert_eq!(event.id, "", "a heartbeat must not change the id of the last event");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_over_the_limit_are_refused_until_one_ends() {
    let server = start_with(Limits { streams: 2, heartbeat: Duration::from_millis(20), ..Limits::default() }).await;
    let first = server.watch("bands").await;
    let mut second = server.watch("quiet").await;
    second.tally().await;
    let refused = server.get("/v1/contests/bands/tally/stream").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert_eq!(refused.header("retry-after"), "1");
    drop(first);
    let mut again = with_timeout(async {
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
async fn a_name_in_any_script_is_streamed_unchanged() {
    let server = start().await;
    let name = "Guns N' \"Roses\" — ガールズ اختبار\u{2028}🎸";
    server.memory.count_votes(vec![(vote_for(name), votes::UnixMillis::now())]);
    let mut stream: Events = server.watch("bands").await;
    assert_eq!(stream.tally().await["bands"][0]["name"], name);
}
