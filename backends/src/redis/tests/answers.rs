//! Kept answers, on a real Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use votes::{Answers, KeptAnswer, Tallies, UnixMillis};

use super::{super::RedisAnswers, Server, open};

async fn open_answers() -> (Arc<dyn Answers>, Arc<dyn Tallies>, Arc<Server>) {
    let (tallies, server, prefix) = open().await;
    let answers = RedisAnswers::new(&server.url(&prefix), 100_000).unwrap();
    (Arc::new(answers), Arc::new(tallies), server)
}

votes::answers_conformance!(open_answers);

#[tokio::test]
async fn a_server_that_is_not_there_costs_nobody_any_time() {
    let answers = RedisAnswers::new("redis://127.0.0.1:1", 100_000).unwrap();
    assert!(answers.look_up("q").await.is_err());
    let begun = Instant::now();
    for _ in 0..100 {
        let answer = KeptAnswer { version: 1, read_at: UnixMillis(0), body: Vec::new() };
        assert!(answers.look_up("q").await.is_err());
        assert!(answers.keep("q", &answer, Duration::from_secs(1)).await.is_err());
    }
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}
