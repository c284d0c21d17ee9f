//! Shutdown while clients are connected.

use std::time::{Duration, Instant};

use proto::v1::WatchTallyRequest;
use proto_grpc::v1::results_service_client::ResultsServiceClient;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::server::{start, with_timeout};

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_every_stream_and_takes_at_most_four_seconds() {
    let server = start().await;
    server.memory.padding.store(2_000_000, std::sync::atomic::Ordering::Relaxed);
    server.memory.count(&["Queen"]);
    let mut stream = server.watch("bands").await;
    stream.tally().await;
    // The client of the first connection sends nothing. The client of the second connection reads nothing.
    let idle = TcpStream::connect(server.http).await.unwrap();
    let mut stalled = TcpStream::connect(server.http).await.unwrap();
    stalled.write_all(b"GET /v1/contests/bands/tally/stream HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut client = ResultsServiceClient::connect(format!("http://{}", server.grpc))
        .await
        .unwrap()
        .max_decoding_message_size(usize::MAX);
    let mut watching = client.watch_tally(WatchTallyRequest { contest: String::new() }).await.unwrap().into_inner();
    with_timeout(watching.message()).await.unwrap().unwrap();
    let unread = client.watch_tally(WatchTallyRequest { contest: String::new() }).await.unwrap();

    let begun = Instant::now();
    server.shutdown.cancel();
    assert_eq!(with_timeout(stream.next()).await, None);
    assert_eq!(with_timeout(watching.message()).await.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(1), "the streams ended only after {:?}", begun.elapsed());
    with_timeout(server.task).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "the shutdown took {:?}", begun.elapsed());
    drop((idle, stalled, unread));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_shuts_down_at_once() {
    let server = start().await;
    let begun = Instant::now();
    server.shutdown.cancel();
    with_timeout(server.task).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "the shutdown took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named_and_the_other_address_is_released() {
    let server = start().await;
    let taken = server.http;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let config = serde_json::json!({ "results": taken, "results_grpc": free });
    let config = service::Config::load(None, config, 0).unwrap();
    let problem = with_timeout(results::Listeners::bind(&config)).await.err().unwrap().to_string();
    assert!(problem.contains(&taken.to_string()), "{problem}");
    tokio::net::TcpListener::bind(free).await.unwrap();
}
