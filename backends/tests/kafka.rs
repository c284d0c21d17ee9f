//! The vote log on a real Kafka keeps every promise of its ports. `dev/stack up` starts one.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use backends::Stores;
use serde_json::json;
use service::{Config, Health, health::Weight};
use uuid::Uuid;
use votes::{VoteFeed, VoteQueue};

/// The stores with a topic of the test's own.
fn stores() -> Stores {
    let broker = std::env::var("OVATION_QUEUE").expect("no Kafka: run `dev/stack up && export $(dev/stack env)`");
    let (brokers, _) = broker.rsplit_once('/').unwrap();
    let urls = json!({
        "queue": format!("{brokers}/test-{}", Uuid::now_v7()),
        "tally": "redis://127.0.0.1:1",
        "book": "mongodb://127.0.0.1:1",
    });
    Stores::open(&Config::load(None, urls, 0).unwrap(), &Health::default()).unwrap()
}

/// What one consumer of a group sees.
mod consumer {
    use super::*;

    async fn open_log() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, ()) {
        let stores = stores();
        (stores.queue(Weight::Vital).await.unwrap(), stores.feed(Weight::Vital).await.unwrap(), ())
    }

    votes::log_conformance!(open_log);
}

/// What a reader outside the group sees.
mod reader {
    use super::*;

    async fn open_log() -> (Arc<dyn VoteQueue>, Arc<dyn VoteFeed>, ()) {
        let stores = stores();
        (stores.queue(Weight::Vital).await.unwrap(), stores.reader(Weight::Vital).await.unwrap(), ())
    }

    votes::log_conformance!(open_log);
}
