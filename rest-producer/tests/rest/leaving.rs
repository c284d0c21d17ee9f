//! The shutdown of the producer.

use std::time::{Duration, Instant};

use crate::client::{JSON, TestProducer};

#[tokio::test]
async fn on_shutdown_an_open_request_gets_its_response() {
    let mut producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    producer.wait_until_pending(1).await;
    producer.shutdown.cancel();
    producer.log.release_all();
    assert_eq!(client.response().await.status, 202);
    (&mut producer.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_shutdown() {
    let mut producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    assert_eq!(client.response().await.status, 202);
    let begun = Instant::now();
    producer.shutdown.cancel();
    (&mut producer.server).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_vote_without_a_receipt_delays_the_shutdown_only_for_the_grace() {
    let mut producer = TestProducer::open().await;
    producer.log.hold();
    let mut client = producer.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    producer.wait_until_pending(1).await;
    let begun = Instant::now();
    producer.shutdown.cancel();
    (&mut producer.server).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let producer = TestProducer::open().await;
    let error = service::program::listen("rest", producer.address).await.unwrap_err();
    assert!(error.to_string().contains(&producer.address.to_string()), "{error}");
}
