//! The shutdown of the producer.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::client::{TestProducer, details, vote};

#[tokio::test]
async fn on_shutdown_an_open_stream_gets_the_outcomes_of_its_votes_and_then_ends() {
    let mut producer = TestProducer::open().await;
    producer.log.hold();
    let mut stream = producer.stream().await;
    for _ in 0..10 {
        stream.send("X");
    }
    producer.wait_until_pending(10).await;
    producer.shutdown.cancel();
    producer.log.release_all();
    for _ in 0..10 {
        assert_eq!(stream.outcome().await, "accepted");
    }
    let status = stream.end().await.unwrap_err();
    assert_eq!((status.code(), details(&status).0.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    (&mut producer.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn on_shutdown_an_open_call_gets_its_receipt() {
    let mut producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.client();
    let shut_down = async {
        producer.wait_until_pending(1).await;
        producer.shutdown.cancel();
        producer.log.release_all();
    };
    let (response, ()) = tokio::join!(client.cast_vote(vote("X")), shut_down);
    response.unwrap();
    (&mut producer.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_endless_stream_does_not_block_the_shutdown() {
    let mut producer = TestProducer::open().await;
    producer.log.hold();
    let stream = producer.stream().await;
    stream.send("X");
    producer.wait_until_pending(1).await;
    let begun = Instant::now();
    producer.shutdown.cancel();
    (&mut producer.server).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
