//! An operator changes the settings of a topic while the system runs.

use std::{sync::Arc, time::Duration};

use rdkafka::admin::{AdminOptions, NewPartitions};
use tokio::time::{sleep, timeout};
use votes::{LogReader, LogWriter, Offset, Partition, PublishError, Store, conformance::logged};

use super::topic::{P, TEST_TIMEOUT, Topic, publish};
use crate::{address::Address, admin::Admin, group::Membership, log_reader::KafkaLogReader, settings::SettingsWatcher};

/// The settings of a topic that our programs have created.
const RIGHT: [(&str, &str); 5] = [
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("cleanup.policy", "delete"),
    ("unclean.leader.election.enable", "false"),
    ("min.insync.replicas", "1"),
];

/// Changes settings of a topic.
async fn change(topic: &Topic, name: &str, changes: &[(&str, &str)]) {
    let mut settings = RIGHT.to_vec();
    settings.retain(|(setting, _)| !changes.iter().any(|(changed, _)| changed == setting));
    settings.extend(changes);
    topic.set(name, &settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_setting_is_reported_with_the_sentence_of_the_start_and_votes_that_could_be_lost_are_refused() {
    let topic = Topic::create(1).await;
    let (log_writer, log_reader) = (topic.writer().await, topic.reader().await);
    let dead_letters = format!("{}.dead", topic.name);
    for (name, setting, value, sentence, is_refused) in [
        (&topic.name, "retention.ms", "1000000", "retention.ms is 1000000 and -1 is configured", true),
        (&topic.name, "retention.bytes", "100000", "votes could be deleted before they are counted", true),
        (&topic.name, "cleanup.policy", "compact", "compaction deletes votes", true),
        (&topic.name, "unclean.leader.election.enable", "true", "could become leader", true),
        (&topic.name, "message.timestamp.type", "LogAppendTime", "the time of acceptance", false),
        (&topic.name, "max.message.bytes", "100", "max.message.bytes is 100", false),
        (&topic.name, "min.insync.replicas", "2", "Kafka would refuse every vote", false),
        (&dead_letters, "retention.ms", "1000000", "retention.ms is 1000000 and -1 is configured", false),
    ] {
        change(&topic, name, &[(setting, value)]).await;
        for store in [&log_writer as &dyn Store, &log_reader] {
            let found = timeout(TEST_TIMEOUT, async {
                loop {
                    log_writer.settings.query().await;
                    log_reader.settings.query().await;
                    if let Err(error) = store.check().await {
                        break error.problem;
                    }
                }
            });
            let problem = found.await.unwrap_or_else(|_| panic!("{setting} was not found"));
            assert!(problem.contains(sentence) && problem.contains(name), "{setting}: {problem}");
            // A new process refuses the topic with the same sentence.
            let Err(refused) = KafkaLogReader::connect(&topic.url, Membership::Standalone).await else {
                panic!("{setting} was accepted at the start")
            };
            assert!(format!("{refused:?}").contains(&format!("{problem:?}")), "{refused:?} is not {problem:?}");
        }
        let published = log_writer.publish(P, logged(1, P, 1).vote);
        match published {
            Err(PublishError::Unavailable(problem)) => {
                assert!(is_refused && problem.contains(sentence), "{setting}: {problem}");
            }
            other => assert!(!is_refused && other.is_ok(), "{setting}: {other:?}"),
        }

        change(&topic, name, &[]).await;
        let repaired = async {
            while log_writer.check().await.is_err() || log_reader.check().await.is_err() {
                log_writer.settings.query().await;
                log_reader.settings.query().await;
            }
        };
        timeout(TEST_TIMEOUT, repaired).await.unwrap_or_else(|_| panic!("{setting} was not repaired"));
        publish(&log_writer, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_found_without_a_health_check() {
    let topic = Topic::create(1).await;
    let address = Address::parse(&topic.url).unwrap();
    let opened = crate::topic::validate_existing(&address).await.unwrap();
    let admin = Arc::new(Admin::new(&address));
    let watcher = SettingsWatcher::start_with(&address, &opened, admin, Duration::from_millis(20));
    let wait_for = async |is_lost: bool| {
        while watcher.loss().is_some() != is_lost {
            sleep(Duration::from_millis(5)).await;
        }
    };
    change(&topic, &topic.name, &[("retention.ms", "1000000")]).await;
    timeout(TEST_TIMEOUT, wait_for(true)).await.expect("the change is found");
    change(&topic, &topic.name, &[]).await;
    timeout(TEST_TIMEOUT, wait_for(false)).await.expect("the repair is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_a_problem_with_its_consequences() {
    let topic = Topic::create(1).await;
    let (log_writer, log_reader) = (topic.writer().await, topic.reader().await);
    let options = AdminOptions::new().request_timeout(Some(TEST_TIMEOUT));
    topic.admin().create_partitions([&NewPartitions::new(&topic.name, 2)], &options).await.unwrap().remove(0).unwrap();
    for store in [&log_writer as &dyn Store, &log_reader] {
        let found = timeout(TEST_TIMEOUT, async {
            loop {
                if let Err(error) = store.check().await {
                    break error.problem;
                }
            }
        });
        let problem = found.await.expect("the new partition is found");
        for words in ["it has 2 partitions and 1 are configured", "the votes of one ballot could be on two partitions"]
        {
            assert!(problem.contains(words), "{problem}");
        }
    }
    // Votes are still accepted, for the old partitions.
    publish(&log_writer, 1).await;
    let added = Partition(1);
    for problem in [
        log_reader.seek(added, Offset(0)).await.unwrap_err().problem,
        log_reader.bounds(added).await.unwrap_err().problem,
    ] {
        assert!(problem.contains("partition 1 was added to topic"), "{problem}");
    }
}
