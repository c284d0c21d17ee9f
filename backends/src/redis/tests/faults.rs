//! Servers that are not as they should be, die, come back, or are others than they were.

use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::cmd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use votes::{Added, ContestId, Offset, Partition, Store, Tallies};

use super::{
    super::{RedisTallies, connection::Connection},
    keys::{add, total, wide},
    open,
    server::Server,
};
use crate::open::NotOpen;

async fn refused(url: &str) -> String {
    match RedisTallies::connect(url).await.err() {
        Some(NotOpen::Refused(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

async fn unreachable(url: &str) -> String {
    match RedisTallies::connect(url).await.err() {
        Some(NotOpen::Unreachable(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

async fn version(tallies: &RedisTallies) -> u64 {
    tallies.tally(&ContestId::default(), 1).await.unwrap().version
}

#[tokio::test]
async fn a_server_that_may_evict_is_refused_then_and_later() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]);
    let problem = refused(&server.url("a")).await;
    assert!(problem.contains("allkeys-lru") && problem.contains("noeviction"), "{problem}");
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    let facts = tallies.check().await.unwrap();
    assert_eq!((facts["maxmemory_policy"].as_str(), facts["persistence"].as_str()), ("noeviction", "appendonly"));
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).await;
    assert!(tallies.check().await.unwrap_err().problem.contains("volatile-ttl"));
}

#[tokio::test]
async fn a_password_is_asked_for_and_never_told() {
    let server = Server::start(&["--requirepass", "right"]);
    assert!(refused(&server.url("a")).await.contains("wants a password"));
    let wrong = server.url("a").replace("redis://", "redis://:wrong-one@");
    let problem = refused(&wrong).await;
    assert!(problem.contains("user or password") && !problem.contains("wrong-one"), "{problem}");
    assert!(RedisTallies::connect(&server.url("a").replace("redis://", "redis://:right@")).await.is_ok());
}

#[tokio::test]
async fn a_replica_is_waited_for() {
    let (server, master) = (Server::start(&[]), Server::start(&[]));
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 3, wide(3)).await;
    let port = master.url("").rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let _: () = server.cli(&["REPLICAOF", "127.0.0.1", &port]).await;
    assert!(tallies.check().await.is_err());
    assert!(tallies.add(Partition(3), Offset(3), Offset(4), wide(1)).await.is_err());
    assert!(unreachable(&server.url("a")).await.contains("give the URL of its master"));
    let _: () = server.cli(&["REPLICAOF", "NO", "ONE"]).await;
    tallies.check().await.unwrap();
}

#[tokio::test]
async fn a_full_memory_changes_nothing() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 3, wide(3)).await;
    let before = tallies.snapshot().await.unwrap();
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = tallies.add(Partition(3), Offset(3), Offset(9), wide(6)).await.unwrap_err();
    assert!(error.problem.contains("OOM"), "{error}");
    assert!(tallies.check().await.is_err());
    assert!(unreachable(&server.url("a")).await.contains("raise its maxmemory"));
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    // Clearing makes room, so it works.
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    tallies.clear().await.unwrap();
    let _: () = server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(add(&tallies, 0, 9, wide(9)).await, Added::Added);
}

#[tokio::test]
async fn no_server_is_told_soon() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    server.kill();
    let begun = Instant::now();
    unreachable(&server.url("a")).await;
    assert!(tallies.position(Partition(0)).await.is_err());
    assert!(tallies.position(Partition(0)).await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_server_that_never_answers_is_told_soon_to_all_who_wait() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    unreachable(&url).await;
    let server = redis::Client::open(url.as_str()).unwrap().get_connection_info().clone();
    let connection = Connection::new(server, None).unwrap();
    let asking = (0..16).map(async |_| cmd("PING").query_async::<String>(&mut connection.clone()).await);
    assert!(join_all(asking).await.iter().all(Result::is_err));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn flushed_scripts_are_sent_again() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    for n in 0..3 {
        assert_eq!(add(&tallies, n, n + 1, wide(1)).await, Added::Added);
        let _: () = server.cli(&["SCRIPT", "FLUSH", "SYNC"]).await;
    }
    tallies.clear().await.unwrap();
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_counts() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    for n in 0..5 {
        assert_eq!(add(&tallies, n * 3, n * 3 + 3, wide(3)).await, Added::Added);
        server.kill();
        server.start_again();
        // The connection is found broken by one question at most.
        let _ = tallies.position(Partition(3)).await;
        assert_eq!(tallies.position(Partition(3)).await.unwrap(), Offset(n * 3 + 3));
    }
    assert_eq!(total(&tallies).await, 15);
}

#[tokio::test]
async fn an_addition_whose_answer_was_lost_is_fenced() {
    let (_, server, prefix) = open().await;
    let target = server.url(&prefix);
    // Between the two stands a proxy that swallows answers when told to.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = proxy.local_addr().unwrap();
    let to = target.trim_start_matches("redis://").split('/').next().unwrap().to_owned();
    let url = target.replace(&to, &through.to_string());
    let (swallow, swallows) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            tokio::spawn(relay(client, TcpStream::connect(to.clone()).await.unwrap(), swallows.clone()));
        }
    });
    let tallies = RedisTallies::connect(&url).await.unwrap();
    add(&tallies, 0, 1, wide(1)).await;
    swallow.send(true).unwrap();
    assert!(tallies.add(Partition(3), Offset(1), Offset(3), wide(2)).await.is_err());
    swallow.send(false).unwrap();
    assert_eq!(add(&tallies, 1, 3, wide(2)).await, Added::Fenced(Offset(3)));
    assert_eq!(total(&tallies).await, 3);
}

/// Hands bytes on both ways; an answer that is to be swallowed breaks the connection instead.
async fn relay(mut client: TcpStream, mut server: TcpStream, swallows: tokio::sync::watch::Receiver<bool>) {
    let (mut question, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok(size) = client.read(&mut question) => {
                if size == 0 || server.write_all(&question[..size]).await.is_err() {
                    return;
                }
            }
            Ok(size) = server.read(&mut answer) => {
                if size == 0 || *swallows.borrow() || client.write_all(&answer[..size]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_after_the_server_was_away() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 1, wide(1)).await;
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
        add(&tallies, 1, 2, wide(1)).await
    };
    let (told, added) = tokio::join!(timeout(Duration::from_secs(5), waiting), adding);
    assert_eq!(added, Added::Added);
    assert!(told.unwrap() > seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_ask_as_often_as_one() {
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
        add(&tallies, 0, 1, wide(1)).await
    };
    let (told, _) = tokio::join!(waiting, adding);
    assert!(told.into_iter().all(|version| version.unwrap() != seen));
    let asked = calls().await - before;
    let elapsed = begun.elapsed();
    assert!(
        u128::from(asked) <= elapsed.as_millis() / 50 + 2,
        "the version was asked for {asked} times in {elapsed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_server_is_a_change_and_no_version_comes_twice() {
    let server = Server::start(&[]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    add(&tallies, 0, 1, wide(1)).await;
    add(&tallies, 1, 2, wide(1)).await;
    let seen = version(&tallies).await;
    let _: () = server.cli(&["FLUSHALL"]).await;
    assert_eq!(tallies.changed(seen).await.unwrap(), 0);
    assert_eq!(add(&tallies, 2, 3, wide(1)).await, Added::Fenced(Offset(0)));
    add(&tallies, 0, 2, wide(2)).await;
    assert!(version(&tallies).await > seen);
}
