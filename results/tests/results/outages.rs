//! What happens while a store does not answer.

use std::{sync::atomic::Ordering, time::Duration};

use futures::future::{join, join_all};
use results::Limits;
use serde_json::json;

use crate::server::{soon, start, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_unavailable_and_never_zero() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.set_tallies_down(true);
    server.memory.book_is_down.store(true, Ordering::Relaxed);
    let paths = [
        "/v1/contests/bands/tally",
        "/v1/contests/bands/tally/stream",
        "/v1/contests/bands/albums",
        "/v1/rates",
        "/v1/votes",
    ];
    for path in paths {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{path}");
        assert_eq!(answer.header("retry-after"), "1", "{path}");
        let problem = answer.json();
        assert_eq!(problem["status"], 503, "{path}");
        let store = if path == "/v1/votes" { "archive" } else { "tallies" };
        assert_eq!(problem["detail"], format!("the {store} can't be read now; try again"), "{path}");
    }
    assert_eq!(server.get("/v1/contests").await.status, 200);
    server.memory.set_tallies_down(false);
    server.memory.book_is_down.store(false, Ordering::Relaxed);
    for path in paths.into_iter().filter(|path| !path.ends_with("stream")) {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.watch("bands").await.tally().await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_no_heartbeat_while_the_tallies_fail_and_goes_on_by_itself() {
    let heartbeat = Duration::from_millis(20);
    let server = start_with(Limits { heartbeat, patience: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = server.watch("bands").await;
    soon(stream.find(|event| event.kind == "heartbeat")).await;
    server.memory.set_tallies_down(true);
    soon(stream.find(|event| !event.comment.is_empty())).await;
    for _ in 0..5 {
        let event = stream.next().await.unwrap();
        assert!(!event.comment.is_empty(), "{event:?} says that the tally is current");
    }
    server.memory.count(&["Queen"]);
    server.memory.set_tallies_down(false);
    assert_eq!(stream.tally().await["total"], 1);
    soon(stream.find(|event| event.kind == "heartbeat")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hiccup_of_the_tallies_is_no_outage() {
    let server = start_with(Limits { heartbeat: Duration::from_millis(10), ..Limits::default() }).await;
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    let read = server.memory.readings.lock().unwrap().len();
    server.memory.set_tallies_down(true);
    soon(server.memory.wait_for_readings(read + 2)).await;
    server.memory.set_tallies_down(false);
    server.memory.count(&["Queen"]);
    let event = soon(stream.find(|event| event.kind == "tally" || !event.comment.is_empty())).await;
    assert_eq!(event.tally()["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_questions_to_the_book_are_few_at_a_time_and_hold_nothing_else_back() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.book_gate.forget_permits(1_000);
    let asked = join_all((0..20).map(|_| server.get("/v1/votes?via=pool")));
    let meanwhile = async {
        let mut questions = server.memory.book_questions.subscribe();
        soon(questions.wait_for(|questions| *questions == 2)).await.unwrap();
        for path in ["/v1/rates", "/v1/contests/bands/albums", "/v1/contests/bands/tally"] {
            assert_eq!(server.get(path).await.status, 200, "{path}");
        }
        assert_eq!(*server.memory.book_questions.borrow(), 2);
        server.memory.book_gate.add_permits(1_000);
    };
    let (answers, ()) = join(asked, meanwhile).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_log_the_tally_is_shown_with_what_was_last_known_to_be_accepted() {
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
