use serde_json::json;

use crate::client::{JSON, TestProducer, slug};

#[tokio::test]
async fn a_vote_is_acknowledged_only_after_the_log_has_it() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"Pink Floyd"}"#).await;
    producer.wait_until_pending(1).await;
    let response = client.response();
    tokio::pin!(response);
    assert!(futures::poll!(&mut response).is_pending());
    producer.log.release_all();
    assert_eq!(response.await.status, 202);
    assert_eq!(producer.log.log().len(), 1);
}

#[tokio::test]
async fn a_receipt_has_the_vote_id_the_position_and_the_time() {
    let producer = TestProducer::open().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let response = producer.vote(&format!(r#"{{"name":"Pink Floyd","vote_id":"{id}"}}"#)).await;
    let vote = &producer.log.log()[0];
    let expected = json!({
        "vote_id": id,
        "contest": "bands",
        "partition": vote.key.partition(12).0,
        "offset": 0,
        "accepted_at": vote.accepted_at.to_string(),
    });
    assert_eq!(response.json(), expected);
    assert_eq!(response.headers["content-type"], "application/json");
    let accepted_at: jiff::Timestamp = response.json()["accepted_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(accepted_at.as_millisecond(), vote.accepted_at.0);
}

#[tokio::test]
async fn numbers_may_be_texts_as_in_load_files() {
    let producer = TestProducer::open().await;
    let response = producer.vote(r#"{"name":"Pink Floyd","album":"The Wall","year":"1979","rank":"5"}"#).await;
    assert_eq!(response.status, 202, "{response:?}");
    let vote = &producer.log.log()[0];
    assert_eq!((vote.name.as_str(), vote.album.as_deref()), ("Pink Floyd", Some("The Wall")));
    assert_eq!((vote.year, vote.rank), (Some(1979), Some(5.0)));
}

#[tokio::test]
async fn media_type_parameters_do_not_matter() {
    let producer = TestProducer::open().await;
    for media_type in ["application/json; charset=utf-8", "Application/JSON;charset=\"UTF-8\"", "application/json;v=1"]
    {
        let response = producer.post("/v1/votes", &[("content-type", media_type)], br#"{"name":"X"}"#).await;
        assert_eq!(response.status, 202, "{media_type}: {response:?}");
    }
}

#[tokio::test]
async fn an_idempotency_key_replaces_the_vote_id() {
    let producer = TestProducer::open().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    for key in [id, "\"01890a5d-ac96-774b-bcce-b302099a8057\"", "order 7", "\"order 7\""] {
        let response = producer.post("/v1/votes", &[JSON, ("Idempotency-Key", key)], br#"{"name":"X"}"#).await;
        assert_eq!(response.status, 202, "{response:?}");
    }
    let log = producer.log.log();
    assert_eq!(log[0].vote_id.to_string(), id);
    assert_eq!(log[0].vote_id, log[1].vote_id);
    assert_eq!(log[2].vote_id, log[3].vote_id);
    assert_ne!(log[0].vote_id, log[2].vote_id);
    let both = format!(r#"{{"name":"X","vote_id":"{id}"}}"#);
    let response = producer.post("/v1/votes", &[JSON, ("Idempotency-Key", id)], both.as_bytes()).await;
    assert_eq!(response.status, 202, "the same id twice is not a contradiction: {response:?}");
}

#[tokio::test]
async fn the_log_stores_the_trace_with_the_vote() {
    let producer = TestProducer::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for traceparent in [trace, "not a trace"] {
        let response = producer.post("/v1/votes", &[JSON, ("traceparent", traceparent)], br#"{"name":"X"}"#).await;
        assert_eq!(response.status, 202);
    }
    let log = producer.log.log();
    assert_eq!(log[0].traceparent.as_ref().unwrap().as_str(), trace);
    assert_eq!(log[1].traceparent, None);
}

#[tokio::test]
async fn with_a_full_queue_a_vote_is_refused_with_its_id_and_a_retry_after() {
    let producer = TestProducer::open().await;
    producer.log.set_capacity(0);
    let response = producer.vote(r#"{"name":"Pink Floyd"}"#).await;
    assert_eq!(response.status, 503);
    assert_eq!(slug(&response.json()), "queue-full");
    assert_eq!(response.headers["retry-after"], "1");
    assert!(response.json()["vote_id"].is_string());
}

#[tokio::test]
async fn a_log_that_does_not_confirm_is_an_error_with_the_id() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.connect().await;
    client.post("/v1/votes", &[JSON, ("Idempotency-Key", "k")], br#"{"name":"X"}"#).await;
    producer.wait_until_pending(1).await;
    producer.log.fail(1);
    let failed = client.response().await;
    assert_eq!((failed.status, slug(&failed.json())), (503, "log-unavailable"));
    assert_eq!(failed.headers["retry-after"], "1");
    producer.log.release_all();
    let again = producer.post("/v1/votes", &[JSON, ("Idempotency-Key", "k")], br#"{"name":"X"}"#).await;
    assert_eq!(again.json()["vote_id"], failed.json()["vote_id"]);
    producer.log.go_down();
    assert_eq!(producer.vote(r#"{"name":"X"}"#).await.status, 503);
}

#[tokio::test]
async fn a_voter_has_one_ballot_and_is_never_stored() {
    let producer = TestProducer::open().await;
    for _ in 0..2 {
        assert_eq!(producer.vote(r#"{"name":"X","contest":"fair","voter":"ada@example.com"}"#).await.status, 202);
    }
    let log = producer.log.log();
    assert_eq!(log[0].key, log[1].key);
    assert_ne!(log[0].vote_id, log[1].vote_id);
    // Not the name alone: the digits of a UUID can spell it.
    assert!(!format!("{log:?}").contains("example.com"));
}

#[tokio::test]
async fn every_response_has_a_request_id_a_response_time_and_nosniff() {
    let producer = TestProducer::open().await;
    let good = producer.post("/v1/votes", &[JSON, ("X-Request-Id", "r-1")], br#"{"name":"X"}"#).await;
    let bad = producer.post("/v1/votes", &[JSON, ("X-Request-Id", "r-2")], b"{").await;
    let lost = producer.post("/v2/votes", &[JSON, ("X-Request-Id", "r-3")], b"{}").await;
    for (response, id) in [(good, "r-1"), (bad, "r-2"), (lost, "r-3")] {
        assert_eq!(response.headers["x-request-id"], id);
        let millis = response.headers["x-response-time"].strip_suffix("ms").and_then(|time| time.parse::<f64>().ok());
        assert!(millis.is_some_and(|millis| millis < 10_000.0), "{response:?}");
        assert_eq!(response.headers["x-content-type-options"], "nosniff");
    }
}

#[tokio::test]
async fn many_votes_share_one_connection() {
    let producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    for offset in 0..10 {
        client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
        assert_eq!(client.response().await.json()["offset"], offset);
    }
}

#[tokio::test]
async fn requests_may_be_pipelined() {
    let producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    let vote =
        "POST /v1/votes HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"name\":\"X\"}";
    client.send(vote.repeat(3).as_bytes()).await;
    for offset in 0..3 {
        assert_eq!(client.response().await.json()["offset"], offset);
    }
}

#[tokio::test]
async fn a_refused_body_does_not_close_the_connection() {
    let producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    client.post("/v1/votes", &[JSON], &vec![b' '; 100_000]).await;
    assert_eq!(client.response().await.status, 413);
    client.post("/v1/votes", &[], br#"{"name":"X"}"#).await;
    assert_eq!(client.response().await.status, 415);
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    assert_eq!(client.response().await.status, 202);
}
