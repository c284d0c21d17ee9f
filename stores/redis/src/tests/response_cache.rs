//! Tests of cached responses on a real Redis server.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use query::{CachedResponse, ResponseCache};
use votes::{Added, Counts, Offset, Partition, Store, Tallies, UnixMillis, conformance::logged};

use super::{Server, open};
use crate::{RedisResponseCache, RedisTallies};

async fn open_response_cache() -> (Arc<dyn ResponseCache>, Arc<dyn Tallies>, Arc<Server>) {
    let (tallies, server, prefix) = open().await;
    let response_cache = RedisResponseCache::new(&server.url(&prefix), 100_000).unwrap();
    (Arc::new(response_cache), Arc::new(tallies), server)
}

query::response_cache_conformance!(open_response_cache);

#[tokio::test]
async fn calls_to_a_server_that_is_down_fail_at_once() {
    let response_cache = RedisResponseCache::new("redis://127.0.0.1:1", 100_000).unwrap();
    assert!(response_cache.get("q").await.is_err());
    let begun = Instant::now();
    for _ in 0..100 {
        let response = CachedResponse { version: 1, read_at: UnixMillis(0), body: Vec::new() };
        assert!(response_cache.get("q").await.is_err());
        assert!(response_cache.put("q", &response, Duration::from_secs(1)).await.is_err());
    }
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn cached_responses_are_cleared_when_counting_needs_the_memory() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("t")).await.unwrap();
    let response_cache = RedisResponseCache::new(&server.url("t"), 50 << 20).unwrap();
    let response = CachedResponse { version: 1, read_at: UnixMillis(0), body: vec![b'x'; 1 << 20] };
    for n in 0..5 {
        response_cache.put(&format!("q{n}"), &response, Duration::from_mins(1)).await.unwrap();
    }
    assert!(response_cache.get("q0").await.unwrap().cached.is_some());
    let info: String = server.cli(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let max = used.trim().parse::<u64>().unwrap() - (1 << 20);
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", &max.to_string()]).await;
    let add = || tallies.add(Partition(0), Offset(0), Offset(1).into(), Counts::of(&[logged(0, Partition(0), 0)]));
    assert!(add().await.unwrap_err().problem.contains("OOM"));
    // `/health` calls this check regularly.
    while response_cache.get("q0").await.unwrap().cached.is_some() {
        response_cache.check().await.unwrap();
    }
    let begun = Instant::now();
    while add().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "counting uses the memory that was freed");
    }
    assert!(matches!(add().await.unwrap(), Added::Fenced(Offset(1))));
}
