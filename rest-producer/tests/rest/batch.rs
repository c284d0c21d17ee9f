use serde_json::Value;
use service::ingest::VotePipeline;

use crate::client::{JSON, NDJSON, Response, TestProducer, slug};

const PATH: &str = "/v1/votes/batch";

fn array(votes: usize) -> String {
    let votes: Vec<_> = (0..votes).map(|n| format!(r#"{{"name":"Band {n}"}}"#)).collect();
    format!("[{}]", votes.join(","))
}

fn outcomes(response: &Response) -> Vec<String> {
    let outcome = |item: &Value| {
        if item["offset"].is_u64() { "accepted".to_owned() } else { slug(item).to_owned() }
    };
    response.items().iter().map(outcome).collect()
}

#[tokio::test]
async fn each_vote_has_its_outcome_in_order() {
    let producer = TestProducer::open().await;
    let body = r#"[{"name":"A"}, {"name":""}, {"name":"B","contest":"none"}, 7, {"name":"C"}, {"nam":], {"name":"D"}]"#;
    let response = producer.batch(body).await;
    assert_eq!(response.status, 200);
    let expected = ["accepted", "invalid-field", "unknown-contest", "malformed-body", "accepted", "malformed-body"];
    assert_eq!(outcomes(&response)[..6], expected);
    let names: Vec<_> = producer.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names[..2], ["A", "C"]);
}

#[tokio::test]
async fn lines_are_votes_too() {
    let producer = TestProducer::open().await;
    let body = b"{\"name\":\"A\"}\r\n\n  \n{\"name\":\"B\"\n[{\"name\":\"C\"}]\n{\"name\":\"D\"}";
    let response = producer.post(PATH, &[NDJSON], body).await;
    assert_eq!(outcomes(&response), ["accepted", "malformed-body", "malformed-body", "accepted"]);
}

#[tokio::test]
async fn the_response_to_an_empty_batch_is_empty() {
    let producer = TestProducer::open().await;
    assert_eq!(producer.batch(" [ ] ").await.body, "[]");
    assert_eq!(producer.post(PATH, &[NDJSON], b"").await.body, "[]");
    assert_eq!(producer.post(PATH, &[NDJSON], b"\n \r\n").await.body, "[]");
}

#[tokio::test]
async fn votes_are_on_the_log_before_the_batch_has_arrived() {
    let producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    let (first, rest) = (br#"[{"name":"The first"},"#, br#"{"name":"Last"}]"#);
    client.head(PATH, &[JSON], first.len() + rest.len()).await;
    client.send(first).await;
    producer.wait_until_logged(1).await;
    client.send(rest).await;
    assert_eq!(outcomes(&client.response().await), ["accepted", "accepted"]);
}

#[tokio::test]
async fn a_batch_that_fills_the_queue_itself_waits_and_no_vote_is_refused() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    producer.log.set_capacity(10);
    let mut client = producer.connect().await;
    client.post(PATH, &[JSON], array(100).as_bytes()).await;
    for _ in 0..10 {
        producer.wait_until_pending(10).await;
        producer.log.release(10);
    }
    let response = client.response().await;
    assert_eq!(outcomes(&response), vec!["accepted"; 100]);
    let names: Vec<_> = producer.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names, (0..100).map(|n| format!("Band {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_has_at_most_as_many_pending_votes_as_a_pipeline_allows() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.connect().await;
    client.post(PATH, &[JSON], array(VotePipeline::MAX_PENDING_VOTES + 10).as_bytes()).await;
    producer.wait_until_pending(VotePipeline::MAX_PENDING_VOTES).await;
    producer.log.release(1);
    producer.wait_until_logged(1).await;
    producer.wait_until_pending(VotePipeline::MAX_PENDING_VOTES).await;
    producer.log.release_all();
    assert_eq!(outcomes(&client.response().await).len(), VotePipeline::MAX_PENDING_VOTES + 10);
}

#[tokio::test]
async fn a_batch_without_a_published_vote_is_refused_as_a_whole_with_every_id() {
    let producer = TestProducer::open().await;
    producer.log.set_capacity(0);
    let response = producer.batch(&array(3)).await;
    assert_eq!((response.status, slug(&response.json())), (503, "queue-full"));
    assert_eq!(response.headers["retry-after"], "1");
    assert_eq!(response.headers["content-type"], "application/problem+json");
    let votes = response.json()["votes"].as_array().unwrap().clone();
    assert_eq!(votes.len(), 3);
    assert!(votes.iter().all(|vote| vote["vote_id"].is_string()), "{votes:?}");
    producer.log.go_down();
    let response = producer.batch(&array(3)).await;
    assert_eq!((response.status, slug(&response.json())), (503, "log-unavailable"));
}

#[tokio::test]
async fn a_batch_with_a_published_vote_is_never_refused_as_a_whole() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.connect().await;
    client.post(PATH, &[JSON], array(3).as_bytes()).await;
    producer.wait_until_pending(3).await;
    producer.log.fail(1);
    producer.log.release_all();
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert_eq!(outcomes(&response), ["log-unavailable", "accepted", "accepted"]);
}

#[tokio::test]
async fn a_batch_of_invalid_votes_has_an_outcome_for_each_vote() {
    let producer = TestProducer::open().await;
    let response = producer.batch(r#"[{"name":""},{"year":1}]"#).await;
    assert_eq!(response.status, 200);
    assert_eq!(outcomes(&response), ["invalid-field", "invalid-field"]);
}

#[tokio::test]
async fn only_an_oversized_vote_is_skipped() {
    let producer = TestProducer::open().await;
    let long = "x".repeat(20_000);
    let array = format!(r#"[{{"name":"A"}},{{"name":"{long}"}},"{long}",{{"name":"B"}}]"#);
    assert_eq!(outcomes(&producer.batch(&array).await), ["accepted", "too-large", "too-large", "accepted"]);
    let lines = format!("{{\"name\":\"A\"}}\n{long}\n{{\"name\":\"B\"}}\n{long}");
    let response = producer.post(PATH, &[NDJSON], lines.as_bytes()).await;
    assert_eq!(outcomes(&response), ["accepted", "too-large", "accepted", "too-large"]);
}

#[tokio::test]
async fn reading_stops_after_ten_thousand_votes() {
    let producer = TestProducer::open().await;
    let response = producer.batch(&array(10_000)).await;
    assert_eq!(outcomes(&response), vec!["accepted"; 10_000]);
    let response = producer.batch(&array(10_050)).await;
    let outcomes = outcomes(&response);
    assert_eq!(
        (outcomes.len(), outcomes[9_999].as_str(), outcomes[10_000].as_str()),
        (10_001, "accepted", "too-large")
    );
    assert!(response.items()[10_000]["detail"].as_str().unwrap().contains("not read"));
    assert_eq!(producer.log.log().len(), 20_000);
}

#[tokio::test]
async fn the_votes_before_malformed_framing_are_published() {
    let producer = TestProducer::open().await;
    for end in ["", ",", " {}", "}", ", ]", "] x", ",,{\"name\":\"B\"}]", "]]"] {
        let response = producer.batch(&format!(r#"[{{"name":"A"}}{end}"#)).await;
        assert_eq!(response.status, 200, "{end}: {response:?}");
        assert_eq!(outcomes(&response), ["accepted", "malformed-body"], "{end}");
        assert!(response.items()[1]["detail"].as_str().unwrap().contains("not read"), "{end}");
    }
}

#[tokio::test]
async fn the_log_stores_the_trace_with_each_vote_of_a_batch() {
    let producer = TestProducer::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    producer.post(PATH, &[JSON, ("traceparent", trace)], array(2).as_bytes()).await;
    assert!(producer.log.log().iter().all(|vote| vote.traceparent.as_ref().unwrap().as_str() == trace));
}
