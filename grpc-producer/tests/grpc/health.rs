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

use crate::client::TestDoor;

const SERVICE: &str = "ovation.v1.VoteService";

/// Watches a service's status until it is this.
async fn until(door: &TestDoor, service: &str, expected: ServingStatus) {
    let request = HealthCheckRequest { service: service.to_owned() };
    let mut statuses = HealthClient::new(door.channel.clone()).watch(request).await.unwrap().into_inner();
    let seen = async {
        while let Some(status) = statuses.message().await.unwrap() {
            if status.status() == expected {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(crate::client::LIMIT, seen).await.expect("never seen");
}

#[tokio::test]
async fn the_door_serves_while_the_process_is_ready_and_no_longer_once_it_leaves() {
    let health = Health::default();
    let latch = health.latch("the log");
    let door = TestDoor::open_with(health).await;
    for service in ["", SERVICE] {
        until(&door, service, ServingStatus::NotServing).await;
    }
    drop(latch);
    for service in ["", SERVICE] {
        until(&door, service, ServingStatus::Serving).await;
    }
    let second = door.health.latch("something else");
    until(&door, SERVICE, ServingStatus::NotServing).await;
    drop(second);
    until(&door, SERVICE, ServingStatus::Serving).await;

    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut statuses = HealthClient::new(door.channel.clone()).watch(request).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    door.shutdown.cancel();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn reflection_names_the_services_in_both_versions() {
    let door = TestDoor::open().await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut client = ServerReflectionClient::new(door.channel.clone());
    let requests = futures::stream::iter([request]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response
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
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(door.channel.clone());
    let requests = futures::stream::iter([request]);
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().unwrap().message_response;
    assert!(
        matches!(answer, Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))),
        "{answer:?}"
    );
}
