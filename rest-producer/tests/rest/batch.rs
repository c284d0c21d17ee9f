use serde_json::Value;
use service::door::Line;

use crate::client::{Answer, JSON, NDJSON, TestDoor, slug};

const PATH: &str = "/v1/votes/batch";

fn array(votes: usize) -> String {
    let votes: Vec<_> = (0..votes).map(|n| format!(r#"{{"name":"Band {n}"}}"#)).collect();
    format!("[{}]", votes.join(","))
}

fn outcomes(answer: &Answer) -> Vec<String> {
    let outcome = |item: &Value| {
        if item["offset"].is_u64() { "accepted".to_owned() } else { slug(item).to_owned() }
    };
    answer.items().iter().map(outcome).collect()
}

#[tokio::test]
async fn each_vote_has_its_outcome_in_order() {
    let door = TestDoor::open().await;
    let body = r#"[{"name":"A"}, {"name":""}, {"name":"B","contest":"none"}, 7, {"name":"C"}, {"nam":], {"name":"D"}]"#;
    let answer = door.batch(body).await;
    assert_eq!(answer.status, 200);
    let expected = ["accepted", "invalid-field", "unknown-contest", "malformed-body", "accepted", "malformed-body"];
    assert_eq!(outcomes(&answer)[..6], expected);
    let names: Vec<_> = door.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names[..2], ["A", "C"]);
}

#[tokio::test]
async fn lines_are_votes_too() {
    let door = TestDoor::open().await;
    let body = b"{\"name\":\"A\"}\r\n\n  \n{\"name\":\"B\"\n[{\"name\":\"C\"}]\n{\"name\":\"D\"}";
    let answer = door.post(PATH, &[NDJSON], body).await;
    assert_eq!(outcomes(&answer), ["accepted", "malformed-body", "malformed-body", "accepted"]);
}

#[tokio::test]
async fn an_empty_batch_is_an_empty_answer() {
    let door = TestDoor::open().await;
    assert_eq!(door.batch(" [ ] ").await.body, "[]");
    assert_eq!(door.post(PATH, &[NDJSON], b"").await.body, "[]");
    assert_eq!(door.post(PATH, &[NDJSON], b"\n \r\n").await.body, "[]");
}

#[tokio::test]
async fn votes_are_on_the_log_before_the_batch_has_arrived() {
    let door = TestDoor::open().await;
    let mut client = door.connect().await;
    let (first, rest) = (br#"[{"name":"First of them"},"#, br#"{"name":"Last"}]"#);
    client.head(PATH, &[JSON], first.len() + rest.len()).await;
    client.send(first).await;
    door.until_logged(1).await;
    client.send(rest).await;
    assert_eq!(outcomes(&client.answer().await), ["accepted", "accepted"]);
}

#[tokio::test]
async fn a_batch_waits_for_its_own_receipts_and_is_not_refused_for_them() {
    let door = TestDoor::open().await;
    door.log.hold();
    door.log.set_capacity(10);
    let mut client = door.connect().await;
    client.post(PATH, &[JSON], array(100).as_bytes()).await;
    for _ in 0..10 {
        door.until_waiting(10).await;
        door.log.release(10);
    }
    let answer = client.answer().await;
    assert_eq!(outcomes(&answer), vec!["accepted"; 100]);
    let names: Vec<_> = door.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names, (0..100).map(|n| format!("Band {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_holds_no_more_than_a_line_of_votes() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.connect().await;
    client.post(PATH, &[JSON], array(Line::LONGEST + 10).as_bytes()).await;
    door.until_waiting(Line::LONGEST).await;
    door.log.release(1);
    door.until_logged(1).await;
    door.until_waiting(Line::LONGEST).await;
    door.log.release_all();
    assert_eq!(outcomes(&client.answer().await).len(), Line::LONGEST + 10);
}

#[tokio::test]
async fn a_batch_of_which_nothing_was_published_is_refused_as_a_whole_with_every_id() {
    let door = TestDoor::open().await;
    door.log.set_capacity(0);
    let answer = door.batch(&array(3)).await;
    assert_eq!((answer.status, slug(&answer.json())), (503, "queue-full"));
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let votes = answer.json()["votes"].as_array().unwrap().clone();
    assert_eq!(votes.len(), 3);
    assert!(votes.iter().all(|vote| vote["vote_id"].is_string()), "{votes:?}");
    door.log.go_down();
    let answer = door.batch(&array(3)).await;
    assert_eq!((answer.status, slug(&answer.json())), (503, "log-unavailable"));
}

#[tokio::test]
async fn a_batch_of_which_something_was_published_is_never_refused_as_a_whole() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.connect().await;
    client.post(PATH, &[JSON], array(3).as_bytes()).await;
    door.until_waiting(3).await;
    door.log.fail(1);
    door.log.release_all();
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(outcomes(&answer), ["log-unavailable", "accepted", "accepted"]);
}

#[tokio::test]
async fn a_batch_of_wrong_votes_only_is_answered_vote_by_vote() {
    let door = TestDoor::open().await;
    let answer = door.batch(r#"[{"name":""},{"year":1}]"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(outcomes(&answer), ["invalid-field", "invalid-field"]);
}

#[tokio::test]
async fn an_oversized_vote_is_skipped_alone() {
    let door = TestDoor::open().await;
    let long = "x".repeat(20_000);
    let array = format!(r#"[{{"name":"A"}},{{"name":"{long}"}},"{long}",{{"name":"B"}}]"#);
    assert_eq!(outcomes(&door.batch(&array).await), ["accepted", "too-large", "too-large", "accepted"]);
    let lines = format!("{{\"name\":\"A\"}}\n{long}\n{{\"name\":\"B\"}}\n{long}");
    let answer = door.post(PATH, &[NDJSON], lines.as_bytes()).await;
    assert_eq!(outcomes(&answer), ["accepted", "too-large", "accepted", "too-large"]);
}

#[tokio::test]
async fn reading_stops_after_ten_thousand_votes() {
    let door = TestDoor::open().await;
    let answer = door.batch(&array(10_000)).await;
    assert_eq!(outcomes(&answer), vec!["accepted"; 10_000]);
    let answer = door.batch(&array(10_050)).await;
    let outcomes = outcomes(&answer);
    assert_eq!(
        (outcomes.len(), outcomes[9_999].as_str(), outcomes[10_000].as_str()),
        (10_001, "accepted", "too-large")
    );
    assert!(answer.items()[10_000]["detail"].as_str().unwrap().contains("not read"));
    assert_eq!(door.log.log().len(), 20_000);
}

#[tokio::test]
async fn broken_framing_keeps_what_was_published_before() {
    let door = TestDoor::open().await;
    for end in ["", ",", " {}", "}", ", ]", "] x", ",,{\"name\":\"B\"}]", "]]"] {
        let answer = door.batch(&format!(r#"[{{"name":"A"}}{end}"#)).await;
        assert_eq!(answer.status, 200, "{end}: {answer:?}");
        assert_eq!(outcomes(&answer), ["accepted", "malformed-body"], "{end}");
        assert!(answer.items()[1]["detail"].as_str().unwrap().contains("not read"), "{end}");
    }
}

#[tokio::test]
async fn a_trace_goes_along_with_each_vote_of_a_batch() {
    let door = TestDoor::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    door.post(PATH, &[JSON, ("traceparent", trace)], array(2).as_bytes()).await;
    assert!(door.log.log().iter().all(|vote| vote.traceparent.as_ref().unwrap().as_str() == trace));
}
