use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use prost::Message;
use proto::v1::CastVoteRequest;
use service::Health;
use tonic::Request;

use crate::client::{TestProducer, frame, vote};

/// Casts 600 votes from one network, through proxies, and 600 votes from ten other networks. Some `X-Forwarded-For`
/// headers also have addresses that the client itself wrote. The contest refuses about half of the votes. Ends the
/// window.
async fn cast_mostly_from_one_network(producer: &TestProducer) {
    let votes = |votes: usize, vote: &CastVoteRequest| frame(0, &vote.encode_to_vec()).repeat(votes);
    let ada = CastVoteRequest { voter: Some("ada".into()), ..vote("X") };
    let lines = [("x-forwarded-for", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.7, 127.0.0.2")];
    producer.call("CastVotes", votes(390, &ada), &lines).await.unwrap();
    producer.call("CastVotes", votes(200, &vote("X")), &lines).await.unwrap();
    for _ in 0..9 {
        let mut request = Request::new(vote("X"));
        request.metadata_mut().insert("x-forwarded-for", "203.0.113.8".parse().unwrap());
        producer.client().cast_vote(request).await.unwrap();
    }
    let late = CastVoteRequest { contest: Some("over".into()), ..vote("X") };
    producer.call("CastVote", votes(1, &late), &lines).await.unwrap_err();
    // This message is not a vote, so it is not recorded.
    producer.call("CastVote", frame(0, &[0xff]), &lines).await.unwrap_err();
    let unknown = CastVoteRequest { contest: Some("finals".into()), ..vote("X") };
    for n in 0..10 {
        let line = format!("203.0.113.7, 198.51.{n}.1");
        producer.call("CastVotes", votes(60, &unknown), &[("x-forwarded-for", &line)]).await.unwrap();
    }
    producer.metered.end_window();
}

fn ratio(recorder: &PrometheusRecorder, kind: &str) -> f64 {
    let name = format!("ovation_heavy_hitter_ratio{{producer=\"grpc\",kind=\"{kind}\"}} ");
    let metrics = recorder.handle().render();
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_else(|| panic!("{metrics}"))
}

#[tokio::test]
async fn a_dominating_network_behind_a_trusted_proxy_is_measured() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let producer = TestProducer::open_behind("127.0.0.0/8".parse().unwrap(), Health::default()).await;
    cast_mostly_from_one_network(&producer).await;
    assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (600.0 / 1_200.0, 390.0 / 1_200.0));
    producer.metered.end_window();
    assert_eq!((ratio(&recorder, "network"), ratio(&recorder, "voter")), (0.0, 0.0));
}

#[tokio::test]
async fn the_header_of_an_untrusted_peer_is_ignored() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _metrics = metrics::set_default_local_recorder(&recorder);
    let producer = TestProducer::open_behind("127.0.1.0/24".parse().unwrap(), Health::default()).await;
    cast_mostly_from_one_network(&producer).await;
    assert!((ratio(&recorder, "network") - 1.0).abs() < 1e-9, "all votes are from this machine");
}
