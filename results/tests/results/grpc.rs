//! The gRPC service `ovation.v1.ResultsService`.

use std::{sync::atomic::Ordering, time::Duration};

use proto::v1::{BandTally, GetTallyRequest, WatchTallyRequest};
use proto_grpc::v1::results_service_client::ResultsServiceClient;
use results::Limits;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;
use votes::UnixMillis;

use crate::{
    memory::vote_for,
    server::{Server, start, start_with, with_timeout},
};

async fn channel(server: &Server) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", server.grpc)).unwrap();
    with_timeout(endpoint.connect()).await.unwrap()
}

async fn connect(server: &Server) -> ResultsServiceClient<Channel> {
    ResultsServiceClient::new(channel(server).await).max_decoding_message_size(usize::MAX)
}

fn tally_of(contest: &str) -> GetTallyRequest {
    GetTallyRequest { contest: contest.into() }
}

fn watch_of(contest: &str) -> WatchTallyRequest {
    WatchTallyRequest { contest: contest.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tally_equals_the_tally_over_http() {
    let server = start().await;
    let version = server.memory.count(&["Queen", "Björk", "Queen", "Queen"]);
    for contest in ["", "bands"] {
        let tally = connect(&server).await.get_tally(tally_of(contest)).await.unwrap().into_inner();
        assert_eq!((tally.contest.as_str(), tally.total, tally.version), ("bands", 4, version));
        let band = |name: &str, votes, share| BandTally { name: name.into(), votes, share };
        assert_eq!(tally.bands, [band("Queen", 3, 0.75), band("Björk", 1, 0.25)]);
        assert_eq!((tally.other_bands, tally.other_votes, tally.producers["rest"]), (0, 0, 4));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_begins_with_the_tally_and_continues_with_changes_of_the_contest() {
    let server = start().await;
    let mut client = connect(&server).await;
    let mut watching = client.watch_tally(watch_of("quiet")).await.unwrap().into_inner();
    assert_eq!(with_timeout(watching.message()).await.unwrap().unwrap().total, 0);
    // Votes of the other contest are counted first, and then a vote of this contest.
    let mut busy = server.watch("bands").await;
    for _ in 0..15 {
        let version = server.memory.count(&["Queen"]);
        busy.tally_where(|tally| tally["version"].as_u64().unwrap() >= version).await;
    }
    let mut vote = vote_for("Silence");
    vote.contest = Some("quiet".into());
    server.memory.count_votes(vec![(vote, UnixMillis::now())]);
    assert_eq!(with_timeout(watching.message()).await.unwrap().unwrap().total, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_skips_to_the_newest_tally() {
    let server = start().await;
    server.memory.count(&["x"]);
    server.memory.padding.store(1_000_000, Ordering::Relaxed);
    let mut slow = connect(&server).await.watch_tally(watch_of("")).await.unwrap().into_inner();
    let mut fast = connect(&server).await.watch_tally(watch_of("")).await.unwrap().into_inner();
    let mut newest = 0;
    for _ in 0..20 {
        newest = server.memory.count(&["x"]);
        while with_timeout(fast.message()).await.unwrap().unwrap().version < newest {}
    }
    let mut received = 1;
    while with_timeout(slow.message()).await.unwrap().unwrap().version < newest {
        received += 1;
    }
    assert!(received <= 8, "a slow client received {received} of 21 messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_contest_is_not_found_and_a_wrong_name_is_an_invalid_argument() {
    let server = start().await;
    let mut client = connect(&server).await;
    let reason = |status: &Status| status.get_error_details().error_info().unwrap().reason.clone();
    let unknown = client.get_tally(tally_of("films")).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "UNKNOWN_CONTEST"));
    assert!(unknown.message().contains("bands"), "{} names the contests", unknown.message());
    let unknown = client.watch_tally(watch_of("films")).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "UNKNOWN_CONTEST"));
    let wrong = client.get_tally(tally_of("No Slug")).await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong).as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    let details = wrong.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "contest");
}

#[tokio::test(flavor = "multi_thread")]
async fn tallies_that_can_not_be_read_are_unavailable_with_a_retry_delay() {
    let server = start_with(Limits { stale_after: Duration::from_millis(100), ..Limits::default() }).await;
    let mut client = connect(&server).await;
    let mut watching = client.watch_tally(watch_of("")).await.unwrap().into_inner();
    with_timeout(watching.message()).await.unwrap().unwrap();
    server.memory.set_tallies_down(true);
    let ended = with_timeout(watching.message()).await.unwrap_err();
    let read = client.get_tally(tally_of("")).await.unwrap_err();
    let watched = client.watch_tally(watch_of("")).await.unwrap_err();
    for status in [ended, read, watched] {
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "the tallies can't be read now; try again");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "STORE_UNAVAILABLE");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_both_protocols_share_the_limit() {
    let server = start_with(Limits { streams: 1, ..Limits::default() }).await;
    let mut events = server.watch("bands").await;
    events.tally().await;
    let refused = connect(&server).await.watch_tally(watch_of("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reports_that_the_service_serves() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

    let server = start().await;
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", "ovation.v1.ResultsService"] {
        let response = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(response.get_ref().status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_names_the_service() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let server = start().await;
    let mut reflection = ServerReflectionClient::new(channel(&server).await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tonic::codegen::tokio_stream::once(request);
    let mut responses = reflection.server_reflection_info(requests).await.unwrap().into_inner();
    let response = with_timeout(responses.message()).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = response else { panic!("{response:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"ovation.v1.ResultsService"), "{names:?}");
}
