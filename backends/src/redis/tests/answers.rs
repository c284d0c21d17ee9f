//! Kept answers, on a real Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use votes::{Added, Answers, Counts, KeptAnswer, Offset, Partition, Store, Tallies, UnixMillis, conformance::logged};

use super::{
    super::{RedisAnswers, RedisTallies},
    Server, open,
};

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

#[tokio::test]
async fn where_memory_is_short_answers_make_room_for_counting() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("t")).await.unwrap();
    let answers = RedisAnswers::new(&server.url("t"), 50 << 20).unwrap();
    let answer = KeptAnswer { version: 1, read_at: UnixMillis(0), body: vec![b'x'; 1 << 20] };
    for n in 0..5 {
        answers.keep(&format!("q{n}"), &answer, Duration::from_mins(1)).await.unwrap();
    }
    assert!(answers.look_up("q0").await.unwrap().kept.is_some());
    let info: String = server.cli(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let most = used.trim().parse::<u64>().unwrap() - (1 << 20);
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", &most.to_string()]).await;
    let add = || tallies.add(Partition(0), Offset(0), Offset(1), Counts::of(&[logged(0, Partition(0), 0)]));
    assert!(add().await.unwrap_err().problem.contains("OOM"));
    // As /health does all the time.
    while answers.look_up("q0").await.unwrap().kept.is_some() {
        answers.check().await.unwrap();
    }
    let begun = Instant::now();
    while add().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "memory that was given back is used");
    }
    assert!(matches!(add().await.unwrap(), Added::Fenced(Offset(1))));
}
