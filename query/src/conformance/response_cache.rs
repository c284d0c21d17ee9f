//! This suite tests the promises of a response cache.

use std::{sync::Arc, time::Duration};

use crate::{CacheLookup, CachedResponse, ResponseCache};
use votes::{ClearCondition, Counts, Offset, Partition, Tallies, UnixMillis};

/// Tests every promise with the cache that `$open` opens, and with the tallies whose version the cache returns. The
/// maximum size of the cache must be 100 000 bytes.
#[macro_export]
macro_rules! response_cache_conformance {
    ($open:path) => {
        $crate::response_cache_conformance!($open:
            a_response_is_cached_unchanged
            the_version_is_that_of_the_tallies
            a_response_expires
            the_time_of_a_response_can_be_extended
            a_full_cache_evicts_first_what_expires_first
            all_responses_can_be_cleared
            popular_queries_are_stored
            clearing_the_tallies_or_the_cache_leaves_the_other
        );
    };
    ($open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $promise() {
            let (cache, tallies, _guard) = $open().await;
            $crate::conformance::response_cache::$promise(cache, tallies).await;
        }
    )*};
}

type TheResponseCache = Arc<dyn ResponseCache>;
type TheTallies = Arc<dyn Tallies>;

const MINUTE: Duration = Duration::from_mins(1);

fn response(version: u64, body: impl Into<Vec<u8>>) -> CachedResponse {
    CachedResponse { version, read_at: UnixMillis(1_795_262_400_123), body: body.into() }
}

async fn cached(cache: &TheResponseCache, query: &str) -> Option<CachedResponse> {
    cache.get(query).await.unwrap().cached
}

pub async fn a_response_is_cached_unchanged(cache: TheResponseCache, _: TheTallies) {
    let query = "votes?name=eq:a+b%00{}*\n\u{1F3B8}";
    assert_eq!(cached(&cache, query).await, None);
    let body: Vec<u8> = (0..=255).collect();
    cache.put(query, &response(u64::MAX >> 11, body.clone()), MINUTE).await.unwrap();
    assert_eq!(cached(&cache, query).await, Some(response(u64::MAX >> 11, body)));
    assert_eq!(cached(&cache, "votes?name=eq:a").await, None);
    cache.put(query, &response(7, "new"), MINUTE).await.unwrap();
    assert_eq!(cached(&cache, query).await, Some(response(7, "new")));
    cache.put("empty", &response(1, ""), MINUTE).await.unwrap();
    assert_eq!(cached(&cache, "empty").await, Some(response(1, "")));
}

pub async fn the_version_is_that_of_the_tallies(cache: TheResponseCache, tallies: TheTallies) {
    let before = cache.get("q").await.unwrap().version;
    tallies
        .add(Partition(0), Offset(0), Offset(1).into(), Counts::of(&[votes::conformance::logged(0, Partition(0), 0)]))
        .await
        .unwrap();
    let CacheLookup { version, cached } = cache.get("q").await.unwrap();
    assert!(version > before && cached.is_none());
    assert_eq!(tallies.changed(before).await.unwrap(), version);
}

pub async fn a_response_expires(cache: TheResponseCache, _: TheTallies) {
    cache.put("short", &response(1, "x"), Duration::from_millis(50)).await.unwrap();
    cache.put("long", &response(1, "y"), MINUTE).await.unwrap();
    while cached(&cache, "short").await.is_some() {}
    assert!(cached(&cache, "long").await.is_some());
}

pub async fn the_time_of_a_response_can_be_extended(cache: TheResponseCache, _: TheTallies) {
    for query in ["short", "extended"] {
        cache.put(query, &response(1, "x"), Duration::from_millis(500)).await.unwrap();
    }
    cache.extend("extended", MINUTE).await.unwrap();
    cache.extend("unknown", MINUTE).await.unwrap();
    while cached(&cache, "short").await.is_some() {}
    assert!(cached(&cache, "extended").await.is_some());
    assert_eq!(cached(&cache, "unknown").await, None);
}

pub async fn a_full_cache_evicts_first_what_expires_first(cache: TheResponseCache, _: TheTallies) {
    let body = vec![b'x'; 10_000];
    for n in 0..30 {
        cache.put(&format!("q{n}"), &response(1, body.clone()), MINUTE + Duration::from_secs(n)).await.unwrap();
    }
    let mut remaining = Vec::new();
    for n in 0..30 {
        if cached(&cache, &format!("q{n}")).await.is_some() {
            remaining.push(n);
        }
    }
    assert!((5..=10).contains(&remaining.len()), "{remaining:?}");
    assert_eq!(remaining, (30 - remaining.len() as u64..30).collect::<Vec<_>>());
    // A response that is larger than the cache is not cached, and evicts no other response.
    cache.put("huge", &response(1, vec![b'x'; 100_001]), MINUTE).await.unwrap();
    assert_eq!(cached(&cache, "huge").await, None);
    assert!(cached(&cache, "q29").await.is_some());
}

pub async fn all_responses_can_be_cleared(cache: TheResponseCache, tallies: TheTallies) {
    for n in 0..5 {
        cache.put(&format!("q{n}"), &response(1, "x"), MINUTE).await.unwrap();
    }
    let version = cache.get("q0").await.unwrap().version;
    assert_eq!(cache.clear().await.unwrap(), 5);
    assert_eq!(cache.clear().await.unwrap(), 0);
    assert_eq!(cache.get("q0").await.unwrap(), CacheLookup { version, cached: None });
    assert_eq!(tallies.snapshot().await.unwrap(), votes::Snapshot::default());
}

pub async fn popular_queries_are_stored(cache: TheResponseCache, _: TheTallies) {
    assert_eq!(cache.popular().await.unwrap(), []);
    let first = [("a".to_owned(), 1.5), ("b".to_owned(), 9.0)];
    cache.put_popular(&first).await.unwrap();
    assert_eq!(cache.popular().await.unwrap(), [("b".to_owned(), 9.0), ("a".to_owned(), 1.5)]);
    cache.put_popular(&[("c".to_owned(), 4.0)]).await.unwrap();
    assert_eq!(cache.popular().await.unwrap(), [("c".to_owned(), 4.0)]);
    cache.put_popular(&[]).await.unwrap();
    assert_eq!(cache.popular().await.unwrap(), []);
}

pub async fn clearing_the_tallies_or_the_cache_leaves_the_other(cache: TheResponseCache, tallies: TheTallies) {
    cache.put("q", &response(1, "x"), MINUTE).await.unwrap();
    cache.put_popular(&[("q".to_owned(), 1.0)]).await.unwrap();
    let counts = Counts::of(&[votes::conformance::logged(0, Partition(0), 0)]);
    tallies.add(Partition(0), Offset(0), Offset(1).into(), counts.clone()).await.unwrap();
    assert_eq!(tallies.snapshot().await.unwrap().contests.len(), 1);
    assert!(tallies.clear(ClearCondition::Always).await.unwrap());
    assert!(cached(&cache, "q").await.is_some());
    cache.clear().await.unwrap();
    tallies.add(Partition(0), Offset(0), Offset(1).into(), counts).await.unwrap();
    assert_eq!(tallies.position(Partition(0)).await.unwrap().offset, Offset(1));
}
