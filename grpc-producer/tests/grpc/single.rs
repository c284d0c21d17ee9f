use proto::v1::CastVoteRequest;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::client::{TestProducer, details, vote};

const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

#[tokio::test]
async fn a_vote_is_acknowledged_only_after_the_log_has_it() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.client();
    let response = client.cast_vote(vote("Pink Floyd"));
    tokio::pin!(response);
    tokio::select! {
        biased;
        _ = &mut response => panic!("acknowledged too early"),
        () = producer.wait_until_pending(1) => {}
    }
    assert!(futures::poll!(&mut response).is_pending());
    producer.log.release_all();
    response.await.unwrap();
    assert_eq!(producer.log.log().len(), 1);
}

#[tokio::test]
async fn a_receipt_has_the_vote_id_the_position_and_the_time() {
    let producer = TestProducer::open().await;
    let full = CastVoteRequest {
        name: " Pink Floyd ".into(),
        album: Some("The Wall".into()),
        year: Some(1979),
        rank: Some(5.5),
        contest: Some("fair".into()),
        voter: Some("ada@example.com".into()),
        vote_id: Some(ID.into()),
    };
    let receipt = producer.client().cast_vote(full).await.unwrap().into_inner();
    let vote = &producer.log.log()[0];
    assert_eq!((vote.name.as_str(), vote.album.as_deref()), ("Pink Floyd", Some("The Wall")));
    assert_eq!((vote.year, vote.rank), (Some(1979), Some(5.5)));
    assert!(!format!("{vote:?}").contains("example.com"));
    assert_eq!((receipt.vote_id.as_str(), receipt.contest.as_str()), (ID, "fair"));
    assert_eq!(receipt.partition, u32::from(vote.key.partition(12).0));
    assert_eq!((receipt.offset, receipt.accepted_at_ms), (0, vote.accepted_at.0));
}

#[tokio::test]
async fn an_idempotency_key_and_a_trace_are_read_from_the_metadata() {
    let producer = TestProducer::open().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for key in [ID, "order 7", "\"order 7\""] {
        let mut request = Request::new(vote("X"));
        request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
        request.metadata_mut().insert("traceparent", trace.parse().unwrap());
        producer.client().cast_vote(request).await.unwrap();
    }
    let log = producer.log.log();
    assert_eq!(log[0].vote_id.to_string(), ID);
    assert_eq!(log[1].vote_id, log[2].vote_id);
    assert!(log.iter().all(|vote| vote.traceparent.as_ref().unwrap().as_str() == trace));
}

#[tokio::test]
async fn with_a_full_queue_a_vote_is_refused_with_its_id_and_a_retry_delay() {
    let producer = TestProducer::open().await;
    producer.log.set_capacity(0);
    let status = producer.client().cast_vote(vote("X")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let (reason, field, vote_id) = details(&status);
    assert_eq!((reason.as_str(), field), ("QUEUE_FULL", None));
    assert!(vote_id.is_some());
    assert!(status.get_error_details().retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test]
async fn a_log_that_does_not_confirm_is_unavailable_with_the_id() {
    let producer = TestProducer::open().await;
    producer.log.hold();
    let cast = CastVoteRequest { vote_id: Some(ID.into()), ..vote("X") };
    let mut client = producer.client();
    let fail = async {
        producer.wait_until_pending(1).await;
        producer.log.fail(1);
    };
    let (response, ()) = tokio::join!(client.cast_vote(cast), fail);
    let status = response.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(details(&status), ("LOG_UNAVAILABLE".into(), None, Some(ID.into())));
    producer.log.go_down();
    assert_eq!(producer.client().cast_vote(vote("X")).await.unwrap_err().code(), Code::Unavailable);
}
