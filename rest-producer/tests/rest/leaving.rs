use std::time::{Duration, Instant};

use crate::client::{JSON, TestDoor};

#[tokio::test]
async fn on_shutdown_an_open_request_is_answered() {
    let mut door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    door.until_waiting(1).await;
    door.shutdown.cancel();
    door.log.release_all();
    assert_eq!(client.answer().await.status, 202);
    (&mut door.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_door_for_long() {
    let mut door = TestDoor::open().await;
    let mut client = door.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    assert_eq!(client.answer().await.status, 202);
    let begun = Instant::now();
    door.shutdown.cancel();
    (&mut door.server).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_vote_without_a_receipt_does_not_hold_the_door_for_long() {
    let mut door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.connect().await;
    client.post("/v1/votes", &[JSON], br#"{"name":"X"}"#).await;
    door.until_waiting(1).await;
    let begun = Instant::now();
    door.shutdown.cancel();
    (&mut door.server).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let door = TestDoor::open().await;
    let again = door.metered.clone();
    let error = rest_producer::run(door.address, again, service::CancellationToken::new(), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains(&door.address.to_string()), "{error}");
}
