use futures::StreamExt;
use service::Health;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{
    v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    },
    v1alpha,
};

use crate::client::TestProducer;

const SERVICE: &str = "ovation.v1.VoteService";

/// Waits until the health service reports the expected status for a service.
async fn wait_for_status(producer: &TestProducer, service: &str, expected: ServingStatus) {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut statuses = HealthClient::new(producer.channel.clone()).watch(request).await.unwrap().into_inner();
    let reached = async {
        while let Some(status) = statuses.message().await.unwrap() {
            if status.status() == expected {
                return;
            }
        }
        panic!("the stream of statuses ended");
    };
    tokio::time::timeout(crate::client::TEST_TIMEOUT, reached).await.expect("the status did not change");
}

#[tokio::test]
async fn the_status_is_serving_while_the_process_is_ready_and_until_shutdown() {
    let health = Health::default();
    let latch = health.add_latch("the log");
    let producer = TestProducer::open_with(health).await;
    for service in ["", SERVICE] {
        wait_for_status(&producer, service, ServingStatus::NotServing).await;
    }
    drop(latch);
    for service in ["", SERVICE] {
        wait_for_status(&producer, service, ServingStatus::Serving).await;
    }
    let second = producer.health.add_latch("something else");
    wait_for_status(&producer, SERVICE, ServingStatus::NotServing).await;
    drop(second);
    wait_for_status(&producer, SERVICE, ServingStatus::Serving).await;

    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut statuses = HealthClient::new(producer.channel.clone()).watch(request).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    producer.shutdown.cancel();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_names_the_services_in_both_versions() {
    let producer = TestProducer::open().await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(producer.channel.clone());
    let requests = futures::stream::iter([request]);
    let mut responses = client.server_reflection_info(requests).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = responses.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == SERVICE), "{names:?}");
    assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");

    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(SERVICE.into())),
        ..v1alpha::ServerReflectionRequest::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(producer.channel.clone());
    let requests = futures::stream::iter([request]);
    let mut responses = client.server_reflection_info(requests).await.unwrap().into_inner();
    let response = responses.next().await.unwrap().unwrap().message_response;
    assert!(
        matches!(response, Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))),
        "{response:?}"
    );
}

#[tokio::test]
async fn reflection_does_not_show_the_record_of_the_log() {
    let producer = TestProducer::open().await;
    let of = |symbol: &str| ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol(symbol.to_owned())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(producer.channel.clone());
    let requests = futures::stream::iter([of("ovation.v1.CastVoteRequest"), of("ovation.v1.VoteRecord")]);
    let mut responses = client.server_reflection_info(requests).await.unwrap().into_inner();
    let known = responses.next().await.unwrap().unwrap().message_response;
    assert!(matches!(known, Some(MessageResponse::FileDescriptorResponse(_))), "{known:?}");
    // tonic's service ends the stream with the status. Other implementations send an error and continue.
    let internal = responses.next().await.unwrap();
    let is_unknown = match &internal {
        Err(status) => status.code() == tonic::Code::NotFound,
        Ok(response) => matches!(response.message_response, Some(MessageResponse::ErrorResponse(_))),
    };
    assert!(is_unknown, "{internal:?}");
}
