//! The results while a store does not respond.

use std::{sync::atomic::Ordering, time::Duration};

use futures::future::{join, join_all};
use results::Limits;
use serde_json::json;

use crate::server::{start, start_with, with_timeout};

#[tokio::test(flavor = "multi_thread")]
async fn data_that_can_not_be_read_is_unavailable_and_never_zero() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.set_tallies_down(true);
    server.memory.query_store_is_down.store(true, Ordering::Relaxed);
    let paths = [
        "/v1/contests/bands/tally",
        "/v1/contests/bands/tally/stream",
        "/v1/contests/bands/albums",
        "/v1/rates",
        "/v1/votes",
    ];
    for path in paths {
        let response = server.get(path).await;
        assert_eq!(response.status, 503, "{path}");
        assert_eq!(response.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(response.header("retry-after"), "1", "{path}");
        let problem = response.json();
        assert_eq!(problem["status"], 503, "{path}");
        let store = if path == "/v1/votes" { "query store" } else { "tallies" };
        assert_eq!(problem["detail"], format!("the {store} can't be read now; try again"), "{path}");
    }
    assert_eq!(server.get("/v1/contests").await.status, 200);
    server.memory.set_tallies_down(false);
    server.memory.query_store_is_down.store(false, Ordering::Relaxed);
    for path in paths.into_iter().filter(|path| !path.ends_with("stream")) {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.watch("bands").await.tally().await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_no_heartbeat_while_the_tallies_fail_and_then_continues() {
    let heartbeat = Duration::from_millis(20);
    let server = start_with(Limits { heartbeat, stale_after: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = server.watch("bands").await;
    with_timeout(stream.find(|event| event.kind == "heartbeat")).await;
    server.memory.set_tallies_down(true);
    with_timeout(stream.find(|event| !event.comment.is_empty())).await;
    for _ in 0..5 {
        let event = stream.next().await.unwrap();
        assert!(!event.comment.is_empty(), "{event:?} means that the tally is current");
    }
    server.memory.count(&["Queen"]);
    server.memory.set_tallies_down(false);
    assert_eq!(stream.tally().await["total"], 1);
    with_timeout(stream.find(|event| event.kind == "heartbeat")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_failure_of_the_tallies_is_not_reported() {
    let server = start_with(Limits { heartbeat: Duration::from_millis(10), ..Limits::default() }).await;
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    let read = server.memory.reads.lock().unwrap().len();
    server.memory.set_tallies_down(true);
    with_timeout(server.memory.wait_for_reads(read + 2)).await;
    server.memory.set_tallies_down(false);
    server.memory.count(&["Queen"]);
    let event = with_timeout(stream.find(|event| event.kind == "tally" || !event.comment.is_empty())).await;
    assert_eq!(event.tally()["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_slow_queries_is_limited_and_other_requests_are_not_delayed() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.query_store_gate.forget_permits(1_000);
    let requests = join_all((0..20).map(|_| server.get("/v1/votes?via=pool")));
    let meanwhile = async {
        let mut queries = server.memory.query_store_calls.subscribe();
        with_timeout(queries.wait_for(|queries| *queries == 2)).await.unwrap();
        for path in ["/v1/rates", "/v1/contests/bands/albums", "/v1/contests/bands/tally"] {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
        assert_eq!(*server.memory.query_store_calls.borrow(), 2);
        server.memory.query_store_gate.add_permits(1_000);
    };
    let (responses, ()) = join(requests, meanwhile).await;
    assert!(responses.iter().all(|response| response.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_a_tally_has_the_last_known_number_of_accepted_votes() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.accept(9);
    server.memory.log_is_down.store(true, Ordering::Relaxed);
    let never_known = server.get("/v1/contests/bands/tally").await;
    assert_eq!(never_known.status, 503);
    assert_eq!(never_known.json()["detail"], "the vote log can't be read now; try again");
    server.memory.log_is_down.store(false, Ordering::Relaxed);
    assert_eq!(server.get("/v1/contests/bands/tally").await.json()["accepted"], 10);
    server.memory.log_is_down.store(true, Ordering::Relaxed);
    let tally = server.get("/v1/contests/bands/tally").await;
    assert_eq!(tally.status, 200);
    assert_eq!((&tally.json()["accepted"], &tally.json()["processed"]), (&json!(10), &json!(1)));
}
