use std::collections::BTreeSet;

use serde_json::Value;

use crate::client::{TestProducer, slug};

async fn document(producer: &TestProducer) -> Value {
    let mut client = producer.connect().await;
    client.send(b"GET /openapi.json HTTP/1.1\r\nHost: producer\r\n\r\n").await;
    client.response().await.json()
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_every_reference_in_it_is_valid() {
    let producer = TestProducer::open().await;
    let document = document(&producer).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let text = document.to_string();
    let references: BTreeSet<_> = text.split("\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(references.len() >= 4, "{references:?}");
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_schema_of_a_vote_has_the_fields_that_the_producer_reads() {
    let producer = TestProducer::open().await;
    let schema = document(&producer).await["components"]["schemas"]["Vote"].clone();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["name"]));
    let unknown = producer.vote(r#"{"no such field":1}"#).await.json()["detail"].as_str().unwrap().to_owned();
    let known: BTreeSet<_> = unknown.rsplit("a vote has ").next().unwrap().split(", ").collect();
    let documented: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(known, documented);
    assert_eq!(producer.vote(&schema["example"].to_string()).await.status, 202);
}

#[tokio::test]
async fn the_schemas_of_responses_have_the_fields_of_responses() {
    let producer = TestProducer::open().await;
    let schemas = document(&producer).await["components"]["schemas"].clone();
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let receipt = producer.vote(r#"{"name":"X"}"#).await.json();
    assert_eq!(fields(&receipt), fields(&schemas["Receipt"]["properties"]));
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let problem = producer.vote(&format!(r#"{{"name":"","vote_id":"{id}"}}"#)).await.json();
    assert_eq!(slug(&problem), "invalid-field");
    assert_eq!(fields(&problem), fields(&schemas["Problem"]["properties"]));
}

#[tokio::test]
async fn each_response_is_documented_with_its_headers() {
    let producer = TestProducer::open().await;
    let document = document(&producer).await;
    for (path, statuses) in [
        ("/v1/votes", vec!["202", "400", "403", "404", "408", "413", "415", "422", "503"]),
        ("/v1/votes/batch", vec!["200", "400", "408", "415", "422", "503"]),
    ] {
        let responses = document["paths"][path]["post"]["responses"].as_object().unwrap();
        assert_eq!(responses.keys().map(String::as_str).collect::<Vec<_>>(), statuses);
        for (status, response) in responses {
            let headers = response["headers"].as_object().unwrap();
            assert!(headers.contains_key("X-Request-Id") && headers.contains_key("X-Response-Time"));
            assert_eq!(headers.contains_key("Retry-After"), status == "503", "{path} {status}");
            assert!(!response["content"].as_object().unwrap().is_empty(), "{path} {status}");
        }
    }
}
