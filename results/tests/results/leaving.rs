//! Leaving, with everybody still there.

use std::time::{Duration, Instant};

use proto::v1::{WatchTallyRequest, results_service_client::ResultsServiceClient};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::server::{soon, start};

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_every_stream_and_is_done_within_four_seconds() {
    let server = start().await;
    server.memory.padding.store(2_000_000, std::sync::atomic::Ordering::Relaxed);
    server.memory.count(&["Queen"]);
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    // One that has sent nothing, one that reads nothing.
    let idle = TcpStream::connect(server.http).await.unwrap();
    let mut stalled = TcpStream::connect(server.http).await.unwrap();
    stalled.write_all(b"GET /v1/contests/bands/tally/stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut client = ResultsServiceClient::connect(format!("http://{}", server.grpc))
        .await
        .unwrap()
        .max_decoding_message_size(usize::MAX);
    let mut watching = client.watch_tally(WatchTallyRequest { contest: String::new() }).await.unwrap().into_inner();
    soon(watching.message()).await.unwrap().unwrap();
    let unread = client.watch_tally(WatchTallyRequest { contest: String::new() }).await.unwrap();

    let begun = Instant::now();
    server.shutdown.cancel();
    assert_eq!(soon(stream.next()).await, None);
    assert_eq!(soon(watching.message()).await.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(1), "streams end at once, and not after {:?}", begun.elapsed());
    soon(server.task).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "leaving took {:?}", begun.elapsed());
    drop((idle, stalled, unread));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_leaves_at_once() {
    let server = start().await;
    let begun = Instant::now();
    server.shutdown.cancel();
    soon(server.task).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "leaving took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_named_and_ends_both_servers() {
    let server = start().await;
    let taken = server.http;
    let grpc = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sources = crate::memory::Memory::new().sources(&["bands"], None).await;
    let outcome = soon(Box::pin(results::run(taken, grpc, sources, service::CancellationToken::new(), |_| ()))).await;
    let problem = outcome.unwrap_err().to_string();
    assert!(problem.contains(&taken.to_string()), "{problem}");
}
