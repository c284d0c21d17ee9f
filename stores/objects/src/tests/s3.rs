//! Tests with the S3 server that `OVATION_OBJECTS` names.

use std::sync::Arc;

use query::Objects;
use uuid::Uuid;
use votes::Store;

use super::open_at;
use crate::ObjectStorage;

/// Opens an object store with a new prefix in the bucket that the environment names.
fn open_from_environment() -> ObjectStorage {
    let url = std::env::var("OVATION_OBJECTS").expect(
        "these tests need an S3 server, which OVATION_OBJECTS names: `dev/stack up --s3 && export $(dev/stack env)` starts \
         a server and sets this variable",
    );
    assert!(url.starts_with("s3://"), "OVATION_OBJECTS begins with s3://");
    open_at(&format!("{url}/test-{}", Uuid::now_v7()))
}

#[expect(clippy::unused_async, reason = "the conformance suite awaits it")]
async fn open() -> (Arc<dyn Objects>, ()) {
    (Arc::new(open_from_environment()), ())
}

query::objects_conformance!(open);

#[tokio::test]
async fn the_health_details_have_the_location() {
    let details = open_from_environment().check().await.unwrap();
    assert!(details["location"].starts_with("s3://"), "{details:?}");
}

#[tokio::test]
async fn the_error_for_a_missing_bucket_names_the_bucket() {
    let objects = open_at("s3://no-such-bucket/x");
    let error = objects.check().await.unwrap_err().to_string();
    assert!(error.contains("s3://no-such-bucket/x") && error.contains("NoSuchBucket"), "{error}");
    let error = objects.create("y").await.map(drop).unwrap_err().to_string();
    assert!(error.contains("NoSuchBucket"), "{error}");
}
