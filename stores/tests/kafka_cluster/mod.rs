//! The topics that tests use, and the administrative operations on these topics.
#![allow(dead_code, reason = "no test file uses all of the module")]

pub(crate) mod stack;

use std::time::Duration;

use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};
use serde_json::json;
use service::{Config, Health};
use stores::Stores;
use tokio::time::sleep;
use uuid::Uuid;
use votes::{Offset, Partition};

/// A topic that only one test uses. It may not exist yet.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) brokers: String,
    pub(crate) name: String,
    /// The options of the URL, with their question mark.
    pub(crate) options: String,
}

impl Topic {
    /// Returns a topic that does not exist yet, on the Kafka of the environment.
    pub(crate) fn from_environment() -> Self {
        let url = std::env::var("OVATION_VOTE_LOG").expect("no Kafka: run `dev/stack up && export $(dev/stack env)`");
        Self::with_brokers_of(&url)
    }

    /// Returns a topic that does not exist yet, on the Kafka of a URL.
    pub(crate) fn with_brokers_of(url: &str) -> Self {
        let (brokers, _) = url.trim_start_matches("kafka://").rsplit_once('/').unwrap();
        Self { brokers: brokers.to_owned(), name: format!("test-{}", Uuid::now_v7()), options: String::new() }
    }

    pub(crate) fn url(&self) -> String {
        format!("kafka://{}/{}{}", self.brokers, self.name, self.options)
    }

    /// Returns stores of which only the vote log can be opened.
    pub(crate) fn stores(&self) -> Stores {
        self.stores_with_health(&Health::default())
    }

    pub(crate) fn stores_with_health(&self, health: &Health) -> Stores {
        let urls =
            json!({ "vote_log": self.url(), "tallies": "redis://127.0.0.1:1", "ledger": "mongodb://127.0.0.1:1/x" });
        Stores::open(&Config::load(None, urls, 0).unwrap(), health).unwrap()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub(crate) async fn create(&self, topics: &[NewTopic<'_>]) {
        for created in self.admin().create_topics(topics, &options()).await.unwrap() {
            created.unwrap();
        }
    }

    /// Deletes the topic, and returns when a topic of the same name can be created.
    pub(crate) async fn delete(&self) {
        let admin = self.admin();
        admin.delete_topics(&[&self.name], &options()).await.unwrap()[0].as_ref().unwrap();
        let probe = NewTopic::new(&self.name, 1, TopicReplication::Fixed(1));
        let check = options().validate_only(true);
        while let Err((_, RDKafkaErrorCode::TopicAlreadyExists)) =
            admin.create_topics([&probe], &check).await.unwrap()[0]
        {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Deletes the topic and creates another one of the same name. This is so fast that a client may not see that the
    /// topic was missing.
    pub(crate) async fn recreate(&self) {
        let admin = self.admin();
        admin.delete_topics(&[&self.name], &options()).await.unwrap()[0].as_ref().unwrap();
        let topic = NewTopic::new(&self.name, 12, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        while let Err((_, RDKafkaErrorCode::TopicAlreadyExists)) =
            admin.create_topics([&topic], &options()).await.unwrap()[0]
        {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Deletes the records before an offset, as retention does.
    pub(crate) async fn delete_records(&self, partition: Partition, before: Offset) {
        let mut list = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(i64::try_from(before.0).unwrap());
        list.add_partition_offset(&self.name, i32::from(partition.0), offset).unwrap();
        self.admin().delete_records(&list, &options()).await.unwrap();
    }
}

fn options() -> AdminOptions {
    let timeout = Some(Duration::from_secs(30));
    AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
}
