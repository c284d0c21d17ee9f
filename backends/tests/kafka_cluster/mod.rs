//! Topics of tests, and what an administrator does to them.
#![allow(dead_code, reason = "no test file uses all of it")]

pub(crate) mod stack;

use std::time::Duration;

use backends::Stores;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};
use serde_json::json;
use service::{Config, Health};
use tokio::time::sleep;
use uuid::Uuid;
use votes::{Offset, Partition};

/// A topic of a test's own.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) brokers: String,
    pub(crate) name: String,
    /// Options of the URL.
    pub(crate) options: String,
}

impl Topic {
    /// On the Kafka that the environment names.
    pub(crate) fn of_the_environment() -> Self {
        let url = std::env::var("OVATION_QUEUE").expect("no Kafka: run `dev/stack up && export $(dev/stack env)`");
        Self::on(&url)
    }

    /// On the Kafka of a URL.
    pub(crate) fn on(url: &str) -> Self {
        let (brokers, _) = url.trim_start_matches("kafka://").rsplit_once('/').unwrap();
        Self { brokers: brokers.to_owned(), name: format!("test-{}", Uuid::now_v7()), options: String::new() }
    }

    pub(crate) fn url(&self) -> String {
        format!("kafka://{}/{}{}", self.brokers, self.name, self.options)
    }

    /// Stores of which only the log is there.
    pub(crate) fn stores(&self) -> Stores {
        self.stores_shown_at(&Health::default())
    }

    pub(crate) fn stores_shown_at(&self, health: &Health) -> Stores {
        let urls = json!({ "queue": self.url(), "tally": "redis://127.0.0.1:1", "book": "mongodb://127.0.0.1:1/x" });
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

    pub(crate) async fn make(&self, topics: &[NewTopic<'_>]) {
        for made in self.admin().create_topics(topics, &options()).await.unwrap() {
            made.unwrap();
        }
    }

    /// Deletes the topic, and returns when a new one may be made.
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

    /// Deletes the topic and makes one of its name, so fast that clients may miss that it was gone.
    pub(crate) async fn make_anew(&self) {
        let admin = self.admin();
        admin.delete_topics(&[&self.name], &options()).await.unwrap()[0].as_ref().unwrap();
        let topic = NewTopic::new(&self.name, 12, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        while let Err((_, RDKafkaErrorCode::TopicAlreadyExists)) =
            admin.create_topics([&topic], &options()).await.unwrap()[0]
        {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Moves the log's start, as retention does.
    pub(crate) async fn delete_records(&self, partition: Partition, before: Offset) {
        let mut list = TopicPartitionList::new();
        let offset = rdkafka::Offset::Offset(i64::try_from(before.0).unwrap());
        list.add_partition_offset(&self.name, i32::from(partition.0), offset).unwrap();
        self.admin().delete_records(&list, &options()).await.unwrap();
    }
}

fn options() -> AdminOptions {
    let patience = Some(Duration::from_secs(30));
    AdminOptions::new().request_timeout(patience).operation_timeout(patience)
}
