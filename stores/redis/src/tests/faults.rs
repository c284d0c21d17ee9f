//! Tests of servers with wrong settings, servers that are killed and restarted, and servers that have lost their data.

use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::cmd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use votes::{
    Added, ClearCondition, ConnectError, ContestId, Offset, Partition, Store, Tallies, conformance::poll_once,
};

use super::{
    keys::{add, counts_of_bands, total},
    open,
    server::Server,
};
use crate::{RedisTallies, connection::Connection};

/// Connects, and returns why the server is refused.
async fn refusal_of(url: &str) -> String {
    match RedisTallies::connect(url).await.err() {
        Some(ConnectError::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

/// Connects, and returns why the server is unreachable.
async fn outage_of(url: &str) -> String {
    match RedisTallies::connect(url).await.err() {
        Some(ConnectError::Unreachable(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

async fn version(tallies: &RedisTallies) -> u64 {
    tallies.tally(&ContestId::default(), 1).await.unwrap().version
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused_at_the_start_and_later() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let problem = refusal_of(&server.url("a")).await;
    assert!(problem.contains("allkeys-lru") && problem.contains("noeviction"), "{problem}");
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    let details = tallies.check().await.unwrap();
    assert_eq!((details["maxmemory_policy"].as_str(), details["persistence"].as_str()), ("noeviction", "appendonly"));
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    assert!(tallies.check().await.unwrap_err().problem.contains("volatile-ttl"));
}

#[tokio::test]
async fn a_missing_password_is_reported_and_a_wrong_one_is_never_shown() {
    let server = Server::start(&["--requirepass", "right"]);
    assert!(refusal_of(&server.url("a")).await.contains("requires a password"));
    let wrong = server.url("a").replace("redis://", "redis://:wrong-one@");
    let problem = refusal_of(&wrong).await;
    assert!(problem.contains("user or password") && !problem.contains("wrong-one"), "{problem}");
    assert!(RedisTallies::connect(&server.url("a").replace("redis://", "redis://:right@")).await.is_ok());
}

#[tokio::test]
async fn a_replica_is_unusable_until_it_becomes_a_master() {
    let (server, master) = (Server::start(&[]), Server::start(&[]));
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 3, counts_of_bands(3)).await;
    let port = master.url("").rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let _: () = server.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
    assert!(tallies.check().await.is_err());
    assert!(tallies.add(Partition(3), Offset(3), Offset(4).into(), counts_of_bands(1)).await.is_err());
    assert!(outage_of(&server.url("a")).await.contains("give the URL of its master"));
    let _: () = server.cli(&["REPLICAOF", "NO", "ONE"]).await;
    tallies.check().await.unwrap();
}

#[tokio::test]
async fn an_addition_to_a_server_with_full_memory_changes_nothing() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 3, counts_of_bands(3)).await;
    let before = tallies.snapshot().await.unwrap();
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = tallies.add(Partition(3), Offset(3), Offset(9).into(), counts_of_bands(6)).await.unwrap_err();
    assert!(error.problem.contains("OOM"), "{error}");
    assert!(tallies.check().await.is_err());
    assert!(outage_of(&server.url("a")).await.contains("raise its maxmemory"));
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    // Clearing frees memory, so Redis allows it.
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(tallies.clear(ClearCondition::Always).await.unwrap());
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(add(&tallies, 0, 9, counts_of_bands(9)).await, Added::Added);
}

#[tokio::test]
async fn a_server_that_is_down_is_reported_within_two_seconds() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    server.kill();
    let begun = Instant::now();
    outage_of(&server.url("a")).await;
    assert!(tallies.position(Partition(0)).await.is_err());
    assert!(tallies.position(Partition(0)).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_server_that_never_replies_is_reported_within_four_seconds_to_all_callers() {
    // This server accepts connections and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    outage_of(&url).await;
    let server = redis::Client::open(url.as_str()).unwrap().get_connection_info().clone();
    let connection = Connection::new(server, None).unwrap();
    let calls = (0..16).map(async |_| cmd("PING").query_async::<String>(&mut connection.clone()).await);
    assert!(join_all(calls).await.iter().all(Result::is_err));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn health_checks_alone_find_the_new_master_behind_a_server_that_hangs() {
    let (hung, master) = (Server::start(&[]), Server::start(&[]));
    let (set_target, target) = tokio::sync::watch::channel(hung.address());
    let tallies = RedisTallies::connect(&proxy(target).await).await.unwrap();
    tallies.check().await.unwrap();
    // The server hangs: its connections stay open, and it does not reply. New connections lead to another server.
    hung.suspend();
    set_target.send(master.address()).unwrap();
    // `/health` drops a check after two seconds. No other call is made.
    let begun = Instant::now();
    while !matches!(timeout(Duration::from_secs(2), tallies.check()).await, Ok(Ok(_))) {
        assert!(begun.elapsed() < Duration::from_secs(15), "the check still fails");
    }
}

#[tokio::test]
async fn callers_that_soon_drop_their_requests_cause_no_new_connection() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    let connections = async || {
        let stats: String = server.cli(&["INFO", "stats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let before = connections().await;
    for _ in 0..50 {
        assert!(poll_once(tallies.check()).is_pending());
        tallies.position(Partition(0)).await.unwrap();
    }
    // The second count has a connection of its own.
    assert_eq!(connections().await, before + 1);
}

#[tokio::test]
async fn flushed_scripts_are_sent_again() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    for n in 0..3 {
        assert_eq!(add(&tallies, n, n + 1, counts_of_bands(1)).await, Added::Added);
        let _: () = server.cli(&["SCRIPT", "FLUSH", "SYNC"]).await;
    }
    assert!(tallies.clear(ClearCondition::Always).await.unwrap());
}

#[tokio::test]
async fn a_killed_server_restarts_with_its_counts() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    for n in 0..5 {
        assert_eq!(add(&tallies, n * 3, n * 3 + 3, counts_of_bands(3)).await, Added::Added);
        server.kill();
        server.start_again();
        // The first call may fail, because the connection is broken.
        let _ = tallies.position(Partition(3)).await;
        assert_eq!(tallies.position(Partition(3)).await.unwrap().offset, Offset(n * 3 + 3));
    }
    assert_eq!(total(&tallies).await, 15);
}

#[tokio::test]
async fn an_addition_whose_reply_was_lost_is_fenced() {
    let (_, server, prefix) = open().await;
    let target = server.url(&prefix);
    // Connect through a proxy that can drop replies.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy_address = proxy.local_addr().unwrap();
    let to = target.trim_start_matches("redis://").split('/').next().unwrap().to_owned();
    let url = target.replace(&to, &proxy_address.to_string());
    let (set_drops_replies, drops_replies) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            tokio::spawn(relay(client, TcpStream::connect(to.clone()).await.unwrap(), drops_replies.clone()));
        }
    });
    let tallies = RedisTallies::connect(&url).await.unwrap();
    add(&tallies, 0, 1, counts_of_bands(1)).await;
    set_drops_replies.send(true).unwrap();
    assert!(tallies.add(Partition(3), Offset(1), Offset(3).into(), counts_of_bands(2)).await.is_err());
    set_drops_replies.send(false).unwrap();
    assert_eq!(add(&tallies, 1, 3, counts_of_bands(2)).await, Added::Fenced(Offset(3)));
    assert_eq!(total(&tallies).await, 3);
}

/// Starts a proxy. Each new connection leads to the server whose address `target` has at this time. Returns the URL.
async fn proxy(target: tokio::sync::watch::Receiver<String>) -> String {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/?prefix=a", proxy.local_addr().unwrap());
    let (drops_replies, _) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            let server = TcpStream::connect(target.borrow().clone());
            tokio::spawn(relay(client, server.await.unwrap(), drops_replies.subscribe()));
        }
    });
    url
}

/// Forwards bytes in both directions. If `drops_replies` is true, closes the connection instead of forwarding a reply.
async fn relay(mut client: TcpStream, mut server: TcpStream, drops_replies: tokio::sync::watch::Receiver<bool>) {
    let (mut request, mut reply) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok(size) = client.read(&mut request) => {
                if size == 0 || server.write_all(&request[..size]).await.is_err() {
                    return;
                }
            }
            Ok(size) = server.read(&mut reply) => {
                if size == 0 || *drops_replies.borrow() || client.write_all(&reply[..size]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_reported_to_a_caller_that_waits_again_after_the_server_was_down() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 1, counts_of_bands(1)).await;
    let seen = version(&tallies).await;
    assert!(timeout(Duration::from_millis(200), tallies.changed(seen)).await.is_err());
    server.kill();
    assert!(timeout(Duration::from_secs(2), tallies.changed(seen)).await.unwrap().is_err());
    server.start_again();
    let waiting = async {
        loop {
            if let Ok(version) = tallies.changed(seen).await {
                return version;
            }
        }
    };
    let adding = async {
        let _ = tallies.position(Partition(3)).await;
        add(&tallies, 1, 2, counts_of_bands(1)).await
    };
    let (changed, added) = tokio::join!(timeout(Duration::from_secs(5), waiting), adding);
    assert_eq!(added, Added::Added);
    assert!(changed.unwrap() > seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_callers_poll_the_server_only_as_often_as_one() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    let seen = version(&tallies).await;
    let calls = async || {
        let stats: String = server.cli(&["INFO", "commandstats"]).await;
        let line = stats.lines().find(|line| line.starts_with("cmdstat_get:")).unwrap_or_default();
        let calls = line.split("calls=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("0");
        calls.parse::<u64>().unwrap()
    };
    let (begun, before) = (Instant::now(), calls().await);
    let waiting = join_all((0..100).map(|_| tallies.changed(seen)));
    let adding = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        add(&tallies, 0, 1, counts_of_bands(1)).await
    };
    let (versions, _) = tokio::join!(waiting, adding);
    assert!(versions.into_iter().all(|version| version.unwrap() != seen));
    let requests = calls().await - before;
    let elapsed = begun.elapsed();
    assert!(
        u128::from(requests) <= elapsed.as_millis() / 50 + 2,
        "the version was requested {requests} times in {elapsed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_data_has_a_new_version_and_reuses_none() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 1, counts_of_bands(1)).await;
    add(&tallies, 1, 2, counts_of_bands(1)).await;
    let seen = version(&tallies).await;
    let _: () = server.cli(&["FLUSHALL"]).await;
    assert_eq!(tallies.changed(seen).await.unwrap(), 0);
    assert_eq!(add(&tallies, 2, 3, counts_of_bands(1)).await, Added::Fenced(Offset(0)));
    add(&tallies, 0, 2, counts_of_bands(2)).await;
    assert!(version(&tallies).await > seen);
}
