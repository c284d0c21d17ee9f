use prost::Message;
use proto::v1::{CastVoteRequest, cast_votes_response::Outcome};
use service::ingest::VotePipeline;
use tonic::{Code, Request};

use crate::client::{TestProducer, details, vote};

#[tokio::test]
async fn each_vote_has_its_outcome_in_order_and_a_refused_one_does_not_end_the_stream() {
    let producer = TestProducer::open().await;
    let mut stream = producer.stream().await;
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
    let names: Vec<_> = producer.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names, ["A", "C", "D"]);
}

#[tokio::test]
async fn votes_are_pipelined_and_no_vote_is_acknowledged_before_the_log_has_it() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut stream = producer.stream().await;
    for n in 0..100 {
        stream.send(&format!("Band {n}"));
    }
    producer.wait_until_pending(100).await;
    assert!(futures::poll!(Box::pin(stream.next())).is_pending());
    producer.log.release_all();
    let log = producer.log.log();
    for (n, vote) in (0..).zip(log) {
        let Some(Ok(Outcome::Receipt(receipt))) = stream.next().await else { panic!("no receipt") };
        assert_eq!((receipt.offset, receipt.vote_id), (n, vote.vote_id.to_string()));
    }
}

#[tokio::test]
async fn a_stream_has_at_most_as_many_pending_votes_as_a_pipeline_allows() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut stream = producer.stream().await;
    for _ in 0..VotePipeline::MAX_PENDING_VOTES + 10 {
        stream.send("X");
    }
    stream.finish();
    producer.wait_until_pending(VotePipeline::MAX_PENDING_VOTES).await;
    producer.log.release(1);
    assert_eq!(stream.outcome().await, "accepted");
    producer.wait_until_pending(VotePipeline::MAX_PENDING_VOTES).await;
    producer.log.release_all();
    for _ in 1..VotePipeline::MAX_PENDING_VOTES + 10 {
        assert_eq!(stream.outcome().await, "accepted");
    }
    stream.end().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_fills_the_queue_itself_waits_and_no_vote_is_refused() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    producer.log.set_capacity(10);
    let mut stream = producer.stream().await;
    for n in 0..100 {
        stream.send(&format!("Band {n}"));
    }
    stream.finish();
    for _ in 0..10 {
        producer.wait_until_pending(10).await;
        producer.log.release(10);
        for _ in 0..10 {
            assert_eq!(stream.outcome().await, "accepted");
        }
    }
    stream.end().await.unwrap();
    let names: Vec<_> = producer.log.log().into_iter().map(|vote| vote.name).collect();
    assert_eq!(names, (0..100).map(|n| format!("Band {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn if_other_clients_have_filled_the_queue_each_vote_is_refused() {
    let producer = TestProducer::open().await;
    producer.log.set_capacity(0);
    let mut stream = producer.stream().await;
    for _ in 0..3 {
        stream.send("X");
        let error = stream.error().await;
        assert_eq!((error.reason.as_str(), error.code), ("queue-full", Code::ResourceExhausted as i32));
        assert!(!error.vote_id.is_empty());
    }
}

#[tokio::test]
async fn a_failed_receipt_is_an_outcome_with_the_id() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut stream = producer.stream().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    stream.send_bytes(CastVoteRequest { vote_id: Some(id.into()), ..vote("X") }.encode_to_vec());
    stream.send("Y");
    producer.wait_until_pending(2).await;
    producer.log.fail(1);
    producer.log.release_all();
    let error = stream.error().await;
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable as i32, "log-unavailable"));
    assert_eq!(error.vote_id, id);
    assert_eq!(stream.outcome().await, "accepted");
}

#[tokio::test]
async fn an_oversized_message_ends_the_stream_after_the_votes_before_it() {
    let producer = TestProducer::open().await;
    let mut stream = producer.stream().await;
    stream.send("A");
    stream.send_bytes(vec![0; 1_000_000]);
    assert_eq!(stream.outcome().await, "accepted");
    let status = stream.end().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(details(&status).0, "TOO_LARGE");
}

#[tokio::test]
async fn a_key_for_a_whole_stream_is_refused() {
    let producer = TestProducer::open().await;
    let mut request = Request::new(futures::stream::iter([vote("X")]));
    request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
    let status = producer.client().cast_votes(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(details(&status), ("INVALID_FIELD".into(), Some("Idempotency-Key".into()), None));
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn the_log_stores_the_trace_with_each_vote_of_a_stream() {
    let producer = TestProducer::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = Request::new(futures::stream::iter([vote("X"), vote("Y")]));
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    let mut responses = producer.client().cast_votes(request).await.unwrap().into_inner();
    while responses.message().await.unwrap().is_some() {}
    let log = producer.log.log();
    assert_eq!(log.len(), 2);
    assert!(log.iter().all(|vote| vote.traceparent.as_ref().unwrap().as_str() == trace));
}
