use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use rest_producer::BodyTimeouts;

use crate::client::{JSON, Response, TestProducer};

/// Casts 600 votes from one network, through proxies, and 600 votes from ten other networks. The `X-Forwarded-For`
/// headers also have addresses that the client itself wrote. The contest refuses about half of the votes. Ends the
/// window.
async fn cast_mostly_from_one_network(producer: &TestProducer) {
    let votes = |votes: usize, vote: &str| format!("[{}]", vec![vote; votes].join(","));
    let post = async |path: &str, lines: &[&str], body: String| -> Response {
        let forwarded = lines.iter().map(|&line| ("X-Forwarded-For", line));
        let headers: Vec<_> = [JSON].into_iter().chain(forwarded).collect();
        producer.post(path, &headers, body.as_bytes()).await
    };
    let lines = ["198.51.100.1, 203.0.113.7"];
    post("/v1/votes/batch", &lines, votes(390, r#"{"name":"X","voter":"ada"}"#)).await;
    post("/v1/votes/batch", &["198.51.100.1", "203.0.113.8, 127.0.0.2"], votes(200, r#"{"name":"X"}"#)).await;
    for _ in 0..9 {
        assert_eq!(post("/v1/votes", &lines, r#"{"name":"X"}"#.to_owned()).await.status, 202);
    }
    assert_eq!(post("/v1/votes", &lines, r#"{"name":"X","contest":"over"}"#.to_owned()).await.status, 403);
    // This body is not a vote, so it is not recorded.
    assert_eq!(post("/v1/votes", &lines, "{".to_owned()).await.status, 400);
    for n in 0..10 {
        let line = format!("203.0.113.7, 198.51.{n}.1");
        let response = post("/v1/votes/batch", &[&line], votes(60, r#"{"name":"X","contest":"finals"}"#)).await;
        assert_eq!((response.status, response.items().len()), (200, 60));
    }
    producer.metered.end_window();
}

fn ratio(recorder: &PrometheusRecorder, kind: &str) -> f64 {
    let name = format!("ovation_heavy_hitter_ratio{{producer=\"rest\",kind=\"{kind}\"}} ");
    let metrics = recorder.handle().render();
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
}

#[tokio::test]
async fn a_dominating_network_behind_a_trusted_proxy_is_measured() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let producer = TestProducer::open_behind("127.0.0.0/8".parse().unwrap(), BodyTimeouts::default()).await;
    cast_mostly_from_one_network(&producer).await;
    assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (600.0 / 1_200.0, 390.0 / 1_200.0));
    producer.metered.end_window();
    assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
}

#[tokio::test]
async fn the_header_of_an_untrusted_peer_is_ignored() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let producer = TestProducer::open_behind("127.0.1.0/24".parse().unwrap(), BodyTimeouts::default()).await;
    cast_mostly_from_one_network(&producer).await;
    assert!((ratio(&recorder, "network") - 1.0).abs() < 1e-9, "all votes are from this machine");
}

#[tokio::test]
async fn the_votes_of_a_disconnected_client_are_measured() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    client.head("/v1/votes/batch", &[JSON], 1_000_000).await;
    client.send(format!("[{}", r#"{"name":"X"},"#.repeat(1_500)).as_bytes()).await;
    producer.wait_until_logged(1_500).await;
    drop(client);
    let is_measured = async {
        while ratio(&recorder, "network") < 0.9 {
            tokio::task::yield_now().await;
            producer.metered.end_window();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), is_measured).await.expect("the votes were not measured");
}
