//! The topics: made if they are missing, and checked in any case. What an acknowledgement promises depends on them.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext,
    consumer::Consumer,
    error::RDKafkaErrorCode,
    metadata::{Metadata, MetadataTopic},
};
use votes::{Facts, StoreError};

use super::{STORE, Voice, address::Address};
use crate::open::NotOpen;

/// How long a broker may take to answer a question about its topics.
const ANSWER: Duration = Duration::from_secs(3);

/// How long a broker may take to say how a topic is now: less than a health check may take.
pub(super) const DESCRIBE: Duration = Duration::from_millis(1_500);

/// Brokers among which copies are worth having; more copies cost more than they gain.
const USUAL_REPLICATION: u16 = 3;

/// How long chunks may wait for a worker. Those that nobody took are published anew.
const CHUNKS_KEPT: Duration = Duration::from_hours(7 * 24);

/// A topic as it was found.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: u16,
    pub(super) replication: u16,
    pub(super) min_insync: u16,
}

impl Topic {
    /// What stands behind an acknowledgement.
    pub(super) fn facts(&self) -> Facts {
        Facts::from([
            ("topic", self.name.clone()),
            ("partitions", self.partitions.to_string()),
            ("replication", self.replication.to_string()),
            ("min_insync_replicas", self.min_insync.to_string()),
        ])
    }

    /// Whether every partition has a leader and enough replicas in sync, of a fresh look at the topic.
    pub(super) fn check(&self, now: &Metadata) -> Result<Facts, StoreError> {
        let problem = |problem: String| StoreError::new(STORE, problem);
        let mut least = usize::MAX;
        for partition in led(&self.name, now).map_err(problem)?.partitions() {
            let in_sync = partition.isr().len();
            if in_sync < usize::from(self.min_insync) {
                let (id, name, wanted) = (partition.id(), &self.name, self.min_insync);
                return Err(problem(format!(
                    "partition {id} of topic {name} has {in_sync} replicas in sync, and {wanted} are needed"
                )));
            }
            least = least.min(in_sync);
        }
        let mut facts = self.facts();
        facts.insert("in_sync_replicas", least.to_string());
        Ok(facts)
    }
}

/// A topic of which every partition has a leader, of a fresh look at it.
pub(super) fn led<'a>(name: &str, now: &'a Metadata) -> Result<&'a MetadataTopic, String> {
    let topic = now.topics().first().ok_or_else(|| format!("Kafka says nothing of topic {name}"))?;
    if let Some(error) = topic.error() {
        return Err(format!("topic {name}: {}", RDKafkaErrorCode::from(error)));
    }
    match topic.partitions().iter().find(|partition| partition.leader() < 0) {
        Some(partition) => Err(format!("partition {} of topic {name} has no leader", partition.id())),
        None => Ok(topic),
    }
}

/// Makes the topics of votes and dead letters if they are missing, and checks them.
pub(super) async fn ensure(address: &Address) -> Result<Topic, NotOpen> {
    let brokers = brokers(address)?;
    let admin = admin(address)?;
    let replication = wanted_replication(address, brokers);
    if replication > brokers {
        // Those of a cluster that starts come one after the other.
        return Err(NotOpen::Unreachable(format!(
            "{replication} copies are wanted and there are {brokers} brokers; start more brokers, or give ?replication={brokers}"
        )));
    }
    let kept = address.retention.map_or("-1".to_owned(), |kept| kept.as_millis().to_string());
    let topics = [address.topic.clone(), address.dead_topic()].map(|name| (name, kept.clone()));
    make(&admin, address, replication, &topics).await?;
    look(&admin, address, replication).await
}

/// Makes the topic of imports' chunks if it is missing. How it is decides nothing.
pub(super) async fn ensure_chunks(address: &Address) -> Result<(), NotOpen> {
    let brokers = brokers(address)?;
    let replication = wanted_replication(address, brokers).min(brokers);
    let topic = (address.chunks_topic(), CHUNKS_KEPT.as_millis().to_string());
    make(&admin(address)?, address, replication, &[topic]).await
}

/// Makes those of the topics that are missing, each with how long its records are kept.
async fn make(
    admin: &AdminClient<Voice>,
    address: &Address,
    replication: u16,
    topics: &[(String, String)],
) -> Result<(), NotOpen> {
    let min_insync = address.min_insync.unwrap_or(replication.saturating_sub(1).max(1));
    let min_insync_text = min_insync.to_string();
    let segment = address.segment_bytes.to_string();
    let topics = topics.iter().map(|(name, retention)| {
        NewTopic::new(name, i32::from(address.partitions), TopicReplication::Fixed(i32::from(replication)))
            .set("min.insync.replicas", &min_insync_text)
            .set("unclean.leader.election.enable", "false")
            .set("cleanup.policy", "delete")
            .set("retention.ms", retention)
            .set("retention.bytes", "-1")
            .set("segment.bytes", &segment)
            .set("message.timestamp.type", "CreateTime")
    });
    let made = admin.create_topics(&topics.collect::<Vec<_>>(), &options()).await.map_err(unreachable)?;
    for outcome in made {
        match outcome {
            Ok(name) => tracing::info!(topic = name, replication, min_insync, "topic made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => return Err(NotOpen::Unreachable(format!("topic {name} can't be made: {error}"))),
        }
    }
    Ok(())
}

/// Copies that each partition should have.
fn wanted_replication(address: &Address, brokers: u16) -> u16 {
    address.replication.unwrap_or(USUAL_REPLICATION.min(brokers))
}

/// Checks the topics that are there.
pub(super) async fn find(address: &Address) -> Result<Topic, NotOpen> {
    let replication = wanted_replication(address, brokers(address)?);
    look(&admin(address)?, address, replication).await
}

pub(super) fn admin(address: &Address) -> Result<AdminClient<Voice>, NotOpen> {
    AdminClient::from_config_and_context(&address.client(), Voice::default())
        .map_err(|error| NotOpen::BadUrl(error.to_string()))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn unreachable(error: impl ToString) -> NotOpen {
    NotOpen::Unreachable(error.to_string())
}

fn brokers(address: &Address) -> Result<u16, NotOpen> {
    // The one question of the client library that can't be asked without blocking.
    let metadata = tokio::task::block_in_place(|| super::ask(address, |client| client.fetch_metadata(None, ANSWER)))?;
    match u16::try_from(metadata.brokers().len()) {
        Ok(0) | Err(_) => Err(NotOpen::Unreachable("no broker is known".to_owned())),
        Ok(brokers) => Ok(brokers),
    }
}

async fn look(admin: &AdminClient<Voice>, address: &Address, replication: u16) -> Result<Topic, NotOpen> {
    let dead = describe(admin, &address.dead_topic()).await?;
    let votes = describe(admin, &address.topic).await?;
    for found in [&dead, &votes] {
        found
            .check(address, replication)
            .map_err(|problem| NotOpen::Refused(format!("topic {}: {problem}", found.topic.name)))?;
    }
    answers(admin, &votes.topic)?;
    Ok(votes.topic)
}

/// Whether every partition's leader knows that it is one: a moment after a topic is made, some do not yet.
fn answers(admin: &AdminClient<Voice>, topic: &Topic) -> Result<(), NotOpen> {
    tokio::task::block_in_place(|| {
        (0..topic.partitions).try_for_each(|partition| {
            admin.inner().fetch_watermarks(&topic.name, i32::from(partition), ANSWER).map(drop).map_err(unreachable)
        })
    })
}

/// A topic with those of its settings that matter.
struct Found {
    topic: Topic,
    settings: HashMap<String, String>,
}

async fn describe(admin: &AdminClient<Voice>, name: &str) -> Result<Found, NotOpen> {
    let resource = [ResourceSpecifier::Topic(name)];
    let described = admin.describe_configs(&resource, &options()).await.map_err(unreachable)?;
    let settings: HashMap<String, String> = match described.into_iter().next() {
        Some(Ok(ConfigResource { entries, .. })) => {
            entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
        }
        Some(Err(error)) => return Err(NotOpen::Unreachable(format!("topic {name}: {error}"))),
        None => return Err(NotOpen::Unreachable(format!("topic {name}: Kafka says nothing of it"))),
    };
    if settings.is_empty() {
        return Err(NotOpen::Unreachable(format!("topic {name} is so new that Kafka does not know its settings yet")));
    }
    let metadata =
        tokio::task::block_in_place(|| admin.inner().fetch_metadata(Some(name), ANSWER)).map_err(unreachable)?;
    let found = metadata.topics().first().filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
    let found = found.ok_or_else(|| NotOpen::Unreachable(format!("there is no topic {name} yet")))?;
    let replication = found.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
    let topic = Topic {
        name: name.to_owned(),
        partitions: u16::try_from(found.partitions().len()).map_err(unreachable)?,
        replication: u16::try_from(replication).map_err(unreachable)?,
        min_insync: settings.get("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1),
    };
    Ok(Found { topic, settings })
}

impl Found {
    /// Whether the topic keeps what is promised with it; if not, what has to be changed.
    fn check(&self, address: &Address, wanted_replication: u16) -> Result<(), String> {
        let Topic { name, partitions, replication, min_insync } = &self.topic;
        if *partitions != address.partitions {
            return Err(format!(
                "it has {partitions} partitions and {} are configured. The number is fixed for a log's life: give \
                 ?partitions={partitions}, or another topic",
                address.partitions
            ));
        }
        let alter = |setting: &str| format!("kafka-configs.sh --alter --topic {name} --add-config {setting}");
        if *replication < wanted_replication {
            return Err(format!(
                "each partition has {replication} copies and {wanted_replication} are wanted; raise it with \
                 kafka-reassign-partitions.sh, or give ?replication={replication}"
            ));
        }
        let wanted = address.min_insync.unwrap_or(replication.saturating_sub(1).max(1));
        if *min_insync < wanted {
            return Err(format!(
                "min.insync.replicas is {min_insync}, so that a vote could be acknowledged and be lost with {min_insync} \
                 broker; at {replication} copies it has to be {wanted}: {}",
                alter(&format!("min.insync.replicas={wanted}"))
            ));
        }
        if min_insync > replication {
            return Err(format!(
                "min.insync.replicas is {min_insync} and there are {replication} copies: no vote can come in"
            ));
        }
        let setting = |name: &str| self.settings.get(name).map_or("", String::as_str);
        for (name, wanted, why) in [
            ("unclean.leader.election.enable", "false", "a replica without the last votes could become leader"),
            ("cleanup.policy", "delete", "compaction deletes votes, and the log is what counting and the audit read"),
            ("message.timestamp.type", "CreateTime", "a record's time is the time of acceptance"),
            ("retention.bytes", "-1", "votes could be deleted before they are counted"),
        ] {
            let found = setting(name);
            if found != wanted {
                return Err(format!(
                    "{name} is {found:?} and has to be {wanted:?}, as {why}: {}",
                    alter(&format!("{name}={wanted}"))
                ));
            }
        }
        let wanted = address.retention.map_or(-1, |kept| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        let kept: i64 = setting("retention.ms").parse().unwrap_or_default();
        if kept != wanted {
            return Err(format!(
                "retention.ms is {kept} and {wanted} is configured (-1 is for ever): {}, or give ?retention=DAYS",
                alter(&format!("retention.ms={wanted}"))
            ));
        }
        Ok(())
    }
}
