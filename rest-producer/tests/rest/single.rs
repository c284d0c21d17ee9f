use serde_json::json;

use crate::client::{JSON, TestDoor, slug};

#[tokio::test]
async fn a_vote_is_acknowledged_only_after_the_log_has_it() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"Pink Floyd"}"#).await;
    door.until_waiting(1).await;
    let answer = client.answer();
    tokio::pin!(answer);
    assert!(futures::poll!(&mut answer).is_pending());
    door.log.release_all();
    assert_eq!(answer.await.status, 202);
    assert_eq!(door.log.log().len(), 1);
}

#[tokio::test]
async fn a_receipt_says_which_vote_where_and_when() {
    let door = TestDoor::open().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let answer = door.vote(&format!(r#"{{"name":"Pink Floyd","vote_id":"{id}"}}"#)).await;
    let vote = &door.log.log()[0];
    let expected = json!({
        "vote_id": id,
        "contest": "bands",
        "partition": vote.key.partition(12).0,
        "offset": 0,
        "accepted_at": vote.accepted_at.to_string(),
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.headers["content-type"], "application/json");
    let accepted_at: jiff::Timestamp = answer.json()["accepted_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(accepted_at.as_millisecond(), vote.accepted_at.0);
}

#[tokio::test]
async fn four_texts_as_load_files_have_them_are_a_vote() {
    let door = TestDoor::open().await;
    let answer = door.vote(r#"{"name":"Pink Floyd","album":"The Wall","year":"1979","rank":"5"}"#).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let vote = &door.log.log()[0];
    assert_eq!((vote.name.as_str(), vote.album.as_deref()), ("Pink Floyd", Some("The Wall")));
    assert_eq!((vote.year, vote.rank), (Some(1979), Some(5.0)));
}

#[tokio::test]
async fn media_type_parameters_do_not_matter() {
    let door = TestDoor::open().await;
    for media_type in ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\"", "application/json;v=1"]
    {
        let answer = door.post("/v1/votes", &[("content-type", media_type)], br#"{"name":"X"}"#).await;
        assert_eq!(answer.status, 202, "{media_type}: {answer:?}");
    }
}

#[tokio::test]
async fn an_idempotency_key_stands_for_the_vote_id() {
    let door = TestDoor::open().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for key in [id, "\"01890a5d-ac96-774b-bcce-b302099a8057\"", "order 7", "\"order 7\""] {
        let answer = door.post("/v1/votes", &[JSON, ("Idempotency-Key", key)], br#"{"name":"X"}"#).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let log = door.log.log();
    assert_eq!(log[0].vote_id.to_string(), id);
    assert_eq!(log[0].vote_id, log[1].vote_id);
    assert_eq!(log[2].vote_id, log[3].vote_id);
    assert_ne!(log[0].vote_id, log[2].vote_id);
    let both = format!(r#"{{"name":"X","vote_id":"{id}"}}"#);
    let answer = door.post("/v1/votes", &[JSON, ("Idempotency-Key", id)], both.as_bytes()).await;
    assert_eq!(answer.status, 202, "the same id twice is no contradiction: {answer:?}");
}

#[tokio::test]
async fn a_trace_goes_along_with_the_vote() {
    let door = TestDoor::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for traceparent in [trace, "not a trace"] {
        let answer = door.post("/v1/votes", &[JSON, ("traceparent", traceparent)], br#"{"name":"X"}"#).await;
        assert_eq!(answer.status, 202);
    }
    let log = door.log.log();
    assert_eq!(log[0].traceparent.as_ref().unwrap().as_str(), trace);
    assert_eq!(log[1].traceparent, None);
}

#[tokio::test]
async fn a_full_queue_is_refused_with_the_id_and_when_to_come_again() {
    let door = TestDoor::open().await;
    door.log.set_capacity(0);
    let answer = door.vote(r#"{"name":"Pink Floyd"}"#).await;
    assert_eq!(answer.status, 503);
    assert_eq!(slug(&answer.json()), "queue-full");
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(answer.json()["vote_id"].is_string());
}

#[tokio::test]
async fn a_log_that_does_not_confirm_is_an_error_with_the_id() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.connect().await;
    client.post("/v1/votes", &[JSON, ("Idempotency-Key", "k")], br#"{"name":"X"}"#).await;
    door.until_waiting(1).await;
    door.log.fail(1);
    let failed = client.answer().await;
    assert_eq!((failed.status, slug(&failed.json())), (503, "log-unavailable"));
    assert_eq!(failed.headers["retry-after"], "1");
    door.log.release_all();
    let again = door.post("/v1/votes", &[JSON, ("Idempotency-Key", "k")], br#"{"name":"X"}"#).await;
    assert_eq!(again.json()["vote_id"], failed.json()["vote_id"]);
    door.log.go_down();
    assert_eq!(door.vote(r#"{"name":"X"}"#).await.status, 503);
}

#[tokio::test]
async fn a_voter_has_one_ballot_and_is_never_stored() {
    let door = TestDoor::open().await;
    for _ in 0..2 {
        assert_eq!(door.vote(r#"{"name":"X","contest":"fair","voter":"ada@example.com"}"#).await.status, 202);
    }
    let log = door.log.log();
    assert_eq!(log[0].key, log[1].key);
    assert_ne!(log[0].vote_id, log[1].vote_id);
    assert!(!format!("{log:?}").contains("ada"));
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_response_time_and_says_what_it_is() {
    let door = TestDoor::open().await;
    let good = door.post("/v1/votes", &[JSON, ("X-Request-Id", "r-1")], br#"{"name":"X"}"#).await;
    let bad = door.post("/v1/votes", &[JSON, ("X-Request-Id", "r-2")], b"{").await;
    let lost = door.post("/v2/votes", &[JSON, ("X-Request-Id", "r-3")], b"{}").await;
    for (answer, id) in [(good, "r-1"), (bad, "r-2"), (lost, "r-3")] {
        assert_eq!(answer.headers["x-request-id"], id);
        let millis = answer.headers["x-response-time"].strip_suffix("ms").and_then(|time| time.parse::<f64>().ok());
        assert!(millis.is_some_and(|millis| millis < 10_000.0), "{answer:?}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn many_votes_share_one_connection() {
    let door = TestDoor::open().await;
    let mut client = door.connect().await;
    for offset in 0..10 {
        client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
        assert_eq!(client.answer().await.json()["offset"], offset);
    }
}

#[tokio::test]
async fn requests_may_come_before_the_answers() {
    let door = TestDoor::open().await;
    let mut client = door.connect().await;
    let vote =
        "POST /v1/votes HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"name\":\"X\"}";
    client.send(vote.repeat(3).as_bytes()).await;
    for offset in 0..3 {
        assert_eq!(client.answer().await.json()["offset"], offset);
    }
}

#[tokio::test]
async fn a_refused_body_does_not_cost_the_connection() {
    let door = TestDoor::open().await;
    let mut client = door.connect().await;
    client.post("/v1/votes", &[JSON], &vec![b' '; 100_000]).await;
    assert_eq!(client.answer().await.status, 413);
    client.post("/v1/votes", &[], br#"{"name":"X"}"#).await;
    assert_eq!(client.answer().await.status, 415);
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    assert_eq!(client.answer().await.status, 202);
}
