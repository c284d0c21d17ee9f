//! Watches the settings of the topics while the system runs. An operator may change them at any time, and after some
//! changes Kafka deletes acknowledged votes before they are counted.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use tokio::time::sleep;
use votes::ConnectError;

use crate::{
    address::Address,
    admin::Admin,
    topic::{self, SettingsProblem, Topic},
};

/// The time between two queries while the settings are right.
const CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// The time between two queries while the settings are wrong. Producers refuse votes until they are repaired.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The problem of the topics' settings that the last query found.
pub(super) struct SettingsWatcher {
    admin: Arc<Admin>,
    address: Address,
    /// The topic as it was when it was opened.
    topic: Topic,
    problem: RwLock<Option<SettingsProblem>>,
}

impl SettingsWatcher {
    /// Starts to watch the topics of votes and dead letters, until the watcher is dropped. The caller has just validated
    /// them.
    pub(super) fn start(address: &Address, topic: &Topic, admin: Arc<Admin>) -> Arc<Self> {
        Self::start_with(address, topic, admin, CHECK_INTERVAL)
    }

    pub(super) fn start_with(address: &Address, topic: &Topic, admin: Arc<Admin>, interval: Duration) -> Arc<Self> {
        let problem = RwLock::default();
        let this = Arc::new(Self { admin, address: address.clone(), topic: topic.clone(), problem });
        tokio::spawn(watch(Arc::downgrade(&this), interval));
        this
    }

    /// Returns the problem, or `None` if the settings were right at the last query.
    pub(super) fn problem(&self) -> Option<SettingsProblem> {
        self.problem.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the problem because of which Kafka may lose acknowledged votes, if there is one.
    pub(super) fn loss(&self) -> Option<String> {
        let problem = self.problem.read().unwrap_or_else(PoisonError::into_inner);
        problem.as_ref().filter(|problem| problem.loses_votes).map(|problem| problem.text.clone())
    }

    /// Queries the settings. If the brokers do not respond, the problem stays as it was.
    pub(super) async fn query(&self) {
        let found = match self.find_problem().await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the settings of the topics are not known");
                self.admin.replace().await;
                return;
            }
        };
        let known = self.problem();
        if known == found {
            return;
        }
        if let Some(problem) = &found {
            tracing::error!(problem = problem.text, "the settings of a topic were changed");
        } else {
            tracing::info!("the settings of the topics are right again");
        }
        *self.problem.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    async fn find_problem(&self) -> Result<Option<SettingsProblem>, ConnectError> {
        let admin = self.admin.client().await?;
        topic::find_problem(&admin, &self.address, &self.topic).await
    }
}

/// Queries the settings at an interval, until the watcher is dropped.
async fn watch(watcher: Weak<SettingsWatcher>, interval: Duration) {
    loop {
        let Some(has_problem) = watcher.upgrade().map(|watcher| watcher.problem().is_some()) else { return };
        sleep(if has_problem { interval.min(RECHECK_INTERVAL) } else { interval }).await;
        let Some(watcher) = watcher.upgrade() else { return };
        watcher.query().await;
    }
}
