use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use rest_producer::Patience;

use crate::client::{Answer, JSON, TestDoor};

/// Casts 600 votes that are forwarded for one network and 600 for ten others, each time with what some clients write
/// themselves. A third is refused by the rules.
async fn cast_mostly_from_one_network(door: &TestDoor) {
    let votes = |votes: usize, vote: &str| format!("[{}]", vec![vote; votes].join(","));
    let post = async |path: &str, lines: &[&str], body: String| -> Answer {
        let forwarded = lines.iter().map(|&line| ("X-Forwarded-For", line));
        let headers: Vec<_> = [JSON].into_iter().chain(forwarded).collect();
        door.post(path, &headers, body.as_bytes()).await
    };
    let lines = ["198.51.100.1, 203.0.113.7"];
    post("/v1/votes/batch", &lines, votes(390, r#"{"name":"X","voter":"ada"}"#)).await;
    post("/v1/votes/batch", &["198.51.100.1", "203.0.113.8, 127.0.0.2"], votes(200, r#"{"name":"X"}"#)).await;
    for _ in 0..9 {
        assert_eq!(post("/v1/votes", &lines, r#"{"name":"X"}"#.to_owned()).await.status, 202);
    }
    assert_eq!(post("/v1/votes", &lines, r#"{"name":"X","contest":"over"}"#.to_owned()).await.status, 403);
    // That is no vote.
    assert_eq!(post("/v1/votes", &lines, "{".to_owned()).await.status, 400);
    for n in 0..10 {
        let line = format!("203.0.113.7, 198.51.{n}.1");
        let answer = post("/v1/votes/batch", &[&line], votes(60, r#"{"name":"X","contest":"finals"}"#)).await;
        assert_eq!((answer.status, answer.items().len()), (200, 60));
    }
    door.metered.end_window();
}

fn ratio(recorder: &PrometheusRecorder, kind: &str) -> f64 {
    let name = format!("ovation_heavy_hitter_ratio{{door=\"rest\",kind=\"{kind}\"}} ");
    let metrics = recorder.handle().render();
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
}

#[tokio::test]
async fn a_dominating_network_behind_a_trusted_proxy_is_seen() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let door = TestDoor::open_behind("127.0.0.0/8".parse().unwrap(), Patience::default()).await;
    cast_mostly_from_one_network(&door).await;
    assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (600.0 / 1_200.0, 390.0 / 1_200.0));
    door.metered.end_window();
    assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
}

#[tokio::test]
async fn a_header_of_somebody_else_is_not_believed() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let door = TestDoor::open_behind("127.0.1.0/24".parse().unwrap(), Patience::default()).await;
    cast_mostly_from_one_network(&door).await;
    assert!((ratio(&recorder, "network") - 1.0).abs() < 1e-9, "all of it is from here");
}

#[tokio::test]
async fn votes_of_a_client_that_left_are_seen() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let door = TestDoor::open().await;
    let mut client = door.connect().await;
    client.head("/v1/votes/batch", &[JSON], 1_000_000).await;
    client.send(format!("[{}", r#"{"name":"X"},"#.repeat(1_500)).as_bytes()).await;
    door.until_logged(1_500).await;
    drop(client);
    let is_seen = async {
        while ratio(&recorder, "network") < 0.9 {
            tokio::task::yield_now().await;
            door.metered.end_window();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), is_seen).await.expect("they were not seen");
}
