//! Creates missing topics, and validates existing topics: an acknowledged vote is safe only if the topic has the
//! required settings.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::Consumer,
    error::RDKafkaErrorCode,
    metadata::{Metadata, MetadataTopic},
};
use tokio::task::spawn_blocking;
use votes::{ConnectError, HealthDetails, StoreError};

use crate::{
    address::Address,
    admin::{self, Client},
    client::{self, STORE},
};

/// The longest time that a broker may take for a request about topics.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time that a broker may take to describe a topic. It is shorter than the time-out of a health check.
pub(super) const DESCRIBE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The replicas of each partition, if the URL sets no number and there are at least as many brokers.
const DEFAULT_REPLICATION: u16 = 3;

/// The time that Kafka retains chunks. If no worker has loaded a chunk, the reconciler publishes it again.
const CHUNKS_RETENTION: Duration = Duration::from_hours(7 * 24);

/// The maximum size of the messages and of the batches of our producers. It is below [`BROKERS_MAX_MESSAGE_BYTES`].
pub(super) const MAX_MESSAGE_BYTES: u32 = 1_000_000;

/// The maximum size of a batch that brokers accept: the default of Kafka.
const BROKERS_MAX_MESSAGE_BYTES: &str = "1048588";

/// A topic, as the brokers describe it.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: u16,
    pub(super) replication: u16,
    pub(super) min_insync: u16,
}

impl Topic {
    /// Returns the settings that the guarantee of an acknowledgement depends on.
    pub(super) fn details(&self) -> HealthDetails {
        HealthDetails::from([
            ("topic", self.name.clone()),
            ("partitions", self.partitions.to_string()),
            ("replication", self.replication.to_string()),
            ("min_insync_replicas", self.min_insync.to_string()),
        ])
    }

    /// Checks that every partition has a leader and enough replicas in sync, by `metadata` that was just fetched.
    pub(super) fn check(&self, metadata: &Metadata) -> Result<HealthDetails, StoreError> {
        let problem = |problem: String| StoreError::new(STORE, problem);
        let mut fewest = usize::MAX;
        let partitions = check_leaders(&self.name, metadata).map_err(problem)?.partitions();
        check_partition_count(partitions.len(), self.partitions)
            .map_err(|text| problem(format!("topic {}: {text}", self.name)))?;
        for partition in partitions {
            let in_sync = partition.isr().len();
            if in_sync < usize::from(self.min_insync) {
                let (id, name, required) = (partition.id(), &self.name, self.min_insync);
                return Err(problem(format!(
                    "partition {id} of topic {name} has {in_sync} replicas in sync, and {required} are required"
                )));
            }
            fewest = fewest.min(in_sync);
        }
        let mut details = self.details();
        details.insert("in_sync_replicas", fewest.to_string());
        Ok(details)
    }
}

/// Checks that a topic has the configured number of partitions.
///
/// # Errors
/// Returns what is wrong and what to do.
pub(super) fn check_partition_count(actual: usize, configured: u16) -> Result<(), String> {
    if actual == usize::from(configured) {
        return Ok(());
    }
    Err(format!(
        "it has {actual} partitions and {configured} are configured. The number is fixed for the life of a log. If the topic \
         has had {actual} partitions from the beginning, give ?partitions={actual}. If partitions were added later, use \
         another topic, with an empty ledger and empty tallies: with ?partitions={actual}, the votes of one ballot could be \
         on two partitions, and the audit would fail"
    ))
}

/// Returns the metadata of a topic.
///
/// # Errors
/// If the topic does not exist, or if one of its partitions has no leader.
pub(super) fn check_leaders<'a>(name: &str, metadata: &'a Metadata) -> Result<&'a MetadataTopic, String> {
    let topic = metadata.topics().first().ok_or_else(|| format!("Kafka returned nothing about topic {name}"))?;
    if let Some(error) = topic.error() {
        return Err(format!("topic {name}: {}", RDKafkaErrorCode::from(error)));
    }
    match topic.partitions().iter().find(|partition| partition.leader() < 0) {
        Some(partition) => Err(format!("partition {} of topic {name} has no leader", partition.id())),
        None => Ok(topic),
    }
}

/// Creates the topics of votes and dead letters if they are missing, and validates them. Returns the topic of votes.
pub(super) async fn ensure(address: &Address) -> Result<Topic, ConnectError> {
    let brokers = broker_count(address).await?;
    let admin = admin::connect(address).await?;
    let replication = wanted_replication(address, brokers);
    if replication > brokers {
        // While a cluster starts, its brokers join one by one.
        return Err(ConnectError::Unreachable(format!(
            "{replication} replicas are configured and there are {brokers} brokers; start more brokers, or give \
             ?replication={brokers}"
        )));
    }
    let retention = address.retention.map_or("-1".to_owned(), |retention| retention.as_millis().to_string());
    let topics = [address.topic.clone(), address.dead_letter_topic()].map(|name| (name, retention.clone()));
    create(&admin, address, replication, &topics).await?;
    validate(&admin, address, replication).await
}

/// Creates the topic of the chunks of imports if it is missing. It is not validated: no guarantee depends on its
/// settings.
pub(super) async fn ensure_chunks(address: &Address) -> Result<(), ConnectError> {
    let brokers = broker_count(address).await?;
    let replication = wanted_replication(address, brokers).min(brokers);
    let topic = (address.chunks_topic(), CHUNKS_RETENTION.as_millis().to_string());
    create(&*admin::connect(address).await?, address, replication, &[topic]).await
}

/// Creates the missing topics of a list. Each element has the name of a topic and its `retention.ms`.
async fn create(
    admin: &Client,
    address: &Address,
    replication: u16,
    topics: &[(String, String)],
) -> Result<(), ConnectError> {
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
            .set("max.message.bytes", BROKERS_MAX_MESSAGE_BYTES)
    });
    let created = admin.create_topics(&topics.collect::<Vec<_>>(), &options()).await.map_err(unreachable)?;
    for outcome in created {
        match outcome {
            Ok(name) => tracing::info!(topic = name, replication, min_insync, "topic created"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => {
                return Err(ConnectError::Unreachable(format!("topic {name} can't be created: {error}")));
            }
        }
    }
    Ok(())
}

/// Returns the number of replicas that each partition should have.
fn wanted_replication(address: &Address, brokers: u16) -> u16 {
    address.replication.unwrap_or(DEFAULT_REPLICATION.min(brokers))
}

/// Validates the topics of votes and dead letters, which must exist. Returns the topic of votes.
pub(super) async fn validate_existing(address: &Address) -> Result<Topic, ConnectError> {
    let replication = wanted_replication(address, broker_count(address).await?);
    validate(&admin::connect(address).await?, address, replication).await
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn unreachable(error: impl ToString) -> ConnectError {
    ConnectError::Unreachable(error.to_string())
}

async fn broker_count(address: &Address) -> Result<u16, ConnectError> {
    let address = address.clone();
    // rdkafka has no asynchronous query for metadata.
    let query = move || client::query_brokers(&address, |client| client.fetch_metadata(None, REQUEST_TIMEOUT));
    let metadata = spawn_blocking(query).await.map_err(unreachable)??;
    match u16::try_from(metadata.brokers().len()) {
        Ok(0) | Err(_) => Err(ConnectError::Unreachable("the cluster reported no brokers".to_owned())),
        Ok(brokers) => Ok(brokers),
    }
}

async fn validate(admin: &Arc<Client>, address: &Address, replication: u16) -> Result<Topic, ConnectError> {
    let dead_letters = describe(admin, &address.dead_letter_topic()).await?;
    let votes = describe(admin, &address.topic).await?;
    for description in [&dead_letters, &votes] {
        description.validate(address, replication).map_err(|problem| ConnectError::Refused(problem.text))?;
    }
    probe_leaders(admin, &votes.topic).await?;
    Ok(votes.topic)
}

/// A problem of the settings of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SettingsProblem {
    /// What is wrong, and in most cases the command or the option that repairs it.
    pub(super) text: String,
    /// Whether Kafka may lose acknowledged votes.
    pub(super) loses_votes: bool,
}

/// Validates the topics of votes and dead letters again. `opened` is the topic of votes as it was when it was opened.
///
/// # Errors
/// If the brokers don't respond.
pub(super) async fn find_problem(
    admin: &Arc<Client>,
    address: &Address,
    opened: &Topic,
) -> Result<Option<SettingsProblem>, ConnectError> {
    let replication = wanted_replication(address, opened.replication);
    // A problem of the votes is the more serious one.
    for name in [address.topic.clone(), address.dead_letter_topic()] {
        let validated = describe(admin, &name).await?.validate(address, replication);
        if let Err(problem) = validated {
            let loses_votes = problem.loses_votes && name == address.topic;
            return Ok(Some(SettingsProblem { loses_votes, ..problem }));
        }
    }
    Ok(None)
}

/// Checks that the leader of every partition responds. Just after a topic was created, some leaders do not respond yet.
async fn probe_leaders(admin: &Arc<Client>, topic: &Topic) -> Result<(), ConnectError> {
    let (admin, topic) = (Arc::clone(admin), topic.clone());
    let probe = move || {
        (0..topic.partitions).try_for_each(|partition| {
            admin
                .inner()
                .fetch_watermarks(&topic.name, i32::from(partition), REQUEST_TIMEOUT)
                .map(drop)
                .map_err(unreachable)
        })
    };
    spawn_blocking(probe).await.map_err(unreachable)?
}

/// A topic with its settings.
struct TopicDescription {
    topic: Topic,
    settings: HashMap<String, String>,
}

async fn describe(admin: &Arc<Client>, name: &str) -> Result<TopicDescription, ConnectError> {
    let resource = [ResourceSpecifier::Topic(name)];
    let described = admin.describe_configs(&resource, &options()).await.map_err(unreachable)?;
    let settings: HashMap<String, String> = match described.into_iter().next() {
        Some(Ok(ConfigResource { entries, .. })) => {
            entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
        }
        Some(Err(error)) => return Err(ConnectError::Unreachable(format!("topic {name}: {error}"))),
        None => return Err(ConnectError::Unreachable(format!("topic {name}: Kafka returned no settings"))),
    };
    if settings.is_empty() {
        return Err(ConnectError::Unreachable(format!(
            "topic {name} is new, and Kafka does not return its settings yet"
        )));
    }
    let query = {
        let (admin, name) = (Arc::clone(admin), name.to_owned());
        move || admin.inner().fetch_metadata(Some(&name), REQUEST_TIMEOUT)
    };
    let metadata = spawn_blocking(query).await.map_err(unreachable)?.map_err(unreachable)?;
    let existing = metadata.topics().first().filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
    let existing = existing.ok_or_else(|| ConnectError::Unreachable(format!("topic {name} does not exist yet")))?;
    let replication =
        existing.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or_default();
    let topic = Topic {
        name: name.to_owned(),
        partitions: u16::try_from(existing.partitions().len()).map_err(unreachable)?,
        replication: u16::try_from(replication).map_err(unreachable)?,
        min_insync: settings.get("min.insync.replicas").and_then(|text| text.parse().ok()).unwrap_or(1),
    };
    Ok(TopicDescription { topic, settings })
}

impl TopicDescription {
    /// Checks the settings that the guarantees of the log depend on.
    ///
    /// # Errors
    /// Returns what is wrong, and in most cases the command or the option that repairs it.
    fn validate(&self, address: &Address, wanted_replication: u16) -> Result<(), SettingsProblem> {
        let problem =
            |text, loses_votes| SettingsProblem { text: format!("topic {}: {text}", self.topic.name), loses_votes };
        let losing = |text: String| problem(text, true);
        let harmless = |text: String| problem(text, false);
        self.validate_losses(address).map_err(losing)?;
        check_partition_count(self.topic.partitions.into(), address.partitions).map_err(harmless)?;
        self.validate_service(wanted_replication).map_err(harmless)
    }

    fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// Returns the command that changes a setting.
    fn command(&self, setting: &str) -> String {
        format!("kafka-configs.sh --alter --topic {} --add-config {setting}", self.topic.name)
    }

    /// Checks that a setting has the wanted value.
    fn require(&self, name: &str, wanted: &str, why: &str) -> Result<(), String> {
        let actual = self.setting(name);
        if actual == wanted {
            return Ok(());
        }
        let command = self.command(&format!("{name}={wanted}"));
        Err(format!("{name} is {actual:?} and has to be {wanted:?}, because {why}: {command}"))
    }

    /// Checks the settings with which Kafka could lose an acknowledged vote.
    fn validate_losses(&self, address: &Address) -> Result<(), String> {
        let Topic { replication, min_insync, .. } = &self.topic;
        let wanted = address.min_insync.unwrap_or(replication.saturating_sub(1).max(1));
        if *min_insync < wanted {
            return Err(format!(
                "min.insync.replicas is {min_insync}: a vote could be acknowledged and be lost when {min_insync} of the \
                 brokers fail; with {replication} replicas it has to be {wanted}: {}",
                self.command(&format!("min.insync.replicas={wanted}"))
            ));
        }
        for (name, wanted, why) in [
            ("unclean.leader.election.enable", "false", "a replica without the last votes could become leader"),
            ("cleanup.policy", "delete", "compaction deletes votes that counting and the audit have to read"),
            ("retention.bytes", "-1", "votes could be deleted before they are counted"),
        ] {
            self.require(name, wanted, why)?;
        }
        let millis = |retention: Duration| i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let wanted = address.retention.map_or(-1, millis);
        let actual: i64 = self.setting("retention.ms").parse().unwrap_or_default();
        if actual != wanted {
            return Err(format!(
                "retention.ms is {actual} and {wanted} is configured (-1 is without end): {}, or give ?retention=DAYS",
                self.command(&format!("retention.ms={wanted}"))
            ));
        }
        Ok(())
    }

    /// Checks the settings with which Kafka could refuse votes or dead letters, change their times, or have fewer
    /// replicas.
    fn validate_service(&self, wanted_replication: u16) -> Result<(), String> {
        self.require("message.timestamp.type", "CreateTime", "a record's time is the time of acceptance")?;
        let Topic { replication, min_insync, .. } = &self.topic;
        if *replication < wanted_replication {
            return Err(format!(
                "each partition has {replication} replicas and {wanted_replication} are configured; raise it with \
                 kafka-reassign-partitions.sh, or give ?replication={replication}"
            ));
        }
        if min_insync > replication {
            return Err(format!(
                "min.insync.replicas is {min_insync} and there are {replication} replicas: Kafka would refuse every vote"
            ));
        }
        let max_bytes: u64 = self.setting("max.message.bytes").parse().unwrap_or_default();
        if max_bytes < u64::from(MAX_MESSAGE_BYTES) {
            return Err(format!(
                "max.message.bytes is {max_bytes} and has to be at least {MAX_MESSAGE_BYTES}, because Kafka would refuse \
                 batches of votes: {}",
                self.command(&format!("max.message.bytes={MAX_MESSAGE_BYTES}"))
            ));
        }
        Ok(())
    }
}
