use std::time::{Duration, Instant};

use tonic::Code;

use crate::client::{TestDoor, details, vote};

#[tokio::test]
async fn on_shutdown_an_open_stream_is_answered_for_what_it_sent_and_then_ended() {
    let mut door = TestDoor::open().await;
    door.log.hold();
    let mut stream = door.stream().await;
    for _ in 0..10 {
        stream.send("X");
    }
    door.until_waiting(10).await;
    door.shutdown.cancel();
    door.log.release_all();
    for _ in 0..10 {
        assert_eq!(stream.outcome().await, "accepted");
    }
    let status = stream.end().await.unwrap_err();
    assert_eq!((status.code(), details(&status).0.as_str()), (Code::Unavailable, "DOOR_CLOSING"));
    (&mut door.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn on_shutdown_an_open_call_is_answered() {
    let mut door = TestDoor::open().await;
    door.log.hold();
    let mut client = door.client();
    let leave = async {
        door.until_waiting(1).await;
        door.shutdown.cancel();
        door.log.release_all();
    };
    let (answer, ()) = tokio::join!(client.cast_vote(vote("X")), leave);
    answer.unwrap();
    (&mut door.server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_never_ends_does_not_hold_the_door() {
    let mut door = TestDoor::open().await;
    door.log.hold();
    let stream = door.stream().await;
    stream.send("X");
    door.until_waiting(1).await;
    let begun = Instant::now();
    door.shutdown.cancel();
    (&mut door.server).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
