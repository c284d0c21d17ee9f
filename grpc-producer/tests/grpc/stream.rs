use prost::Message;
use proto::v1::{CastVoteRequest, cast_votes_response::Outcome};
use service::door::Line;
use tonic::{Code, Request};

use crate::client::{TestDoor, details, vote};

#[tokio::test]
async fn each_vote_has_its_outcome_in_order_and_a_refused_one_does_not_end_the_stream() {
    let door = TestDoor::open().await;
    let mut stream = door.stream().await;
    let unknown = CastVoteRequest { contest: Some("none".into()), ..vote("B") };
    for message in [vote("A"), vote(""), unknown, vote("C")] {
        stream.send_bytes(message.encode_to_vec());
    }
    stream.send_bytes(b"\xff".to_vec());
    stream.send_bytes(vote(&"x".repeat(20_000)).encode_to_vec());
    stream.send("D");
    stream.finish();
    for expected in
        ["accepted", "invalid-field", "unknown-contest", "accepted", "malformed-body", "too-large", "accepted"]
    {
        assert_eq!(stream.outcome().await, expected);
    }
    stream.end().await.unwrap();
    let names: Vec<_> = door.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names, ["A", "C", "D"]);
}

#[tokio::test]
async fn votes_are_pipelined_and_none_is_acknowledged_before_the_log_has_it() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut stream = door.stream().await;
    for n in 0..100 {
        stream.send(&format!("Band {n}"));
    }
    door.until_waiting(100).await;
    assert!(futures::poll!(Box::pin(stream.next())).is_pending());
    door.log.release_all();
    let log = door.log.log();
    for (n, vote) in (0..).zip(log) {
        let Some(Ok(Outcome::Receipt(receipt))) = stream.next().await else { panic!("no receipt") };
        assert_eq!((receipt.offset, receipt.vote_id), (n, vote.vote_id.to_string()));
    }
}

#[tokio::test]
async fn a_stream_holds_no_more_than_a_line_of_votes() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut stream = door.stream().await;
    for _ in 0..Line::LONGEST + 10 {
        stream.send("X");
    }
    stream.finish();
    door.until_waiting(Line::LONGEST).await;
    door.log.release(1);
    assert_eq!(stream.outcome().await, "accepted");
    door.until_waiting(Line::LONGEST).await;
    door.log.release_all();
    for _ in 1..Line::LONGEST + 10 {
        assert_eq!(stream.outcome().await, "accepted");
    }
    stream.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_waits_for_its_own_receipts_and_is_not_refused_for_them() {
    let door = TestDoor::open().await;
    door.log.hold();
    door.log.set_capacity(10);
    let mut stream = door.stream().await;
    for n in 0..100 {
        stream.send(&format!("Band {n}"));
    }
    stream.finish();
    for _ in 0..10 {
        door.until_waiting(10).await;
        door.log.release(10);
        for _ in 0..10 {
            assert_eq!(stream.outcome().await, "accepted");
        }
    }
    stream.end().await.unwrap();
    let names: Vec<_> = door.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names, (0..100).map(|n| format!("Band {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queue_that_others_have_filled_is_reported_vote_by_vote() {
    let door = TestDoor::open().await;
    door.log.set_capacity(0);
    let mut stream = door.stream().await;
    for _ in 0..3 {
        stream.send("X");
        let error = stream.error().await;
        assert_eq!((error.reason.as_str(), error.code), ("queue-full", Code::ResourceExhausted as i32));
        assert!(!error.vote_id.is_empty());
    }
}

#[tokio::test]
async fn a_failed_receipt_is_an_outcome_with_the_id() {
    let door = TestDoor::open().await;
    door.log.hold();
    let mut stream = door.stream().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    stream.send_bytes(CastVoteRequest { vote_id: Some(id.into()), ..vote("X") }.encode_to_vec());
    stream.send("Y");
    door.until_waiting(2).await;
    door.log.fail(1);
    door.log.release_all();
    let error = stream.error().await;
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable as i32, "log-unavailable"));
    assert_eq!(error.vote_id, id);
    assert_eq!(stream.outcome().await, "accepted");
}

#[tokio::test]
async fn a_message_beyond_any_vote_ends_the_stream_after_the_votes_before_it() {
    let door = TestDoor::open().await;
    let mut stream = door.stream().await;
    stream.send("A");
    stream.send_bytes(vec![0; 1_000_000]);
    assert_eq!(stream.outcome().await, "accepted");
    let status = stream.end().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(details(&status).0, "TOO_LARGE");
}

#[tokio::test]
async fn a_key_for_a_whole_stream_is_refused() {
    let door = TestDoor::open().await;
    let mut request = Request::new(futures::stream::iter([vote("X")]));
    request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
    let status = door.client().cast_votes(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(details(&status), ("INVALID_FIELD".into(), Some("Idempotency-Key".into()), None));
    assert_eq!(door.log.log(), []);
}

#[tokio::test]
async fn a_trace_goes_along_with_each_vote_of_a_stream() {
    let door = TestDoor::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = Request::new(futures::stream::iter([vote("X"), vote("Y")]));
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    let mut answers = door.client().cast_votes(request).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let log = door.log.log();
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|vote| vote.traceparent.as_ref().unwrap().as_str() == trace));
}
