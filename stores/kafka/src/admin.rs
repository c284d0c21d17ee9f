//! The client for administrative requests. It is created on first use and kept, and replaced after errors.

use std::sync::Arc;

use rdkafka::{admin::AdminClient, config::FromClientConfigAndContext};
use tokio::{sync::Mutex, task::spawn_blocking};
use votes::ConnectError;

use crate::{address::Address, client::ClientStatus};

pub(super) type Client = AdminClient<ClientStatus>;

/// An administrative client that several tasks share.
pub(super) struct Admin {
    address: Address,
    current: Mutex<Option<Arc<Client>>>,
}

impl Admin {
    pub(super) fn new(address: &Address) -> Self {
        Self { address: address.clone(), current: Mutex::default() }
    }

    /// Returns the client.
    pub(super) async fn client(&self) -> Result<Arc<Client>, ConnectError> {
        let mut current = self.current.lock().await;
        if let Some(client) = &*current {
            return Ok(Arc::clone(client));
        }
        let client = connect(&self.address).await?;
        Ok(Arc::clone(current.insert(client)))
    }

    /// Drops the client, because a request has failed. The next request creates another one: a client that has lost its
    /// brokers never connects again.
    pub(super) async fn replace(&self) {
        let replaced = self.current.lock().await.take();
        // Dropping a client waits for its threads to end.
        spawn_blocking(move || drop(replaced));
    }
}

/// Creates a client. Its threads are started on a thread for blocking calls.
pub(super) async fn connect(address: &Address) -> Result<Arc<Client>, ConnectError> {
    let config = address.client();
    let client = spawn_blocking(move || Client::from_config_and_context(&config, ClientStatus::default())).await;
    let client = client.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
    client.map(Arc::new).map_err(|error| ConnectError::BadUrl(error.to_string()))
}
