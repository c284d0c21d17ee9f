//! The databases of votes and of datasets, for queries and imports. Counting has separate connections.

use mongodb::{Client, Database, bson::doc, options::ClientOptions};
use votes::ConnectError;

use crate::{
    call::{MONGO_OPERATION_TIMEOUT, error_text},
    connect::{DEFAULT_DATABASE, connect_error, parse_url},
};

/// The name of the database of datasets is the name of the ledger's database with this suffix.
const DATASETS_SUFFIX: &str = "_datasets";

/// The server that stores votes and datasets. It is not connected yet.
#[derive(Clone)]
pub struct Server {
    options: ClientOptions,
    ledger: String,
}

impl Server {
    /// Parses a URL. A client will have at most `max_connections` connections to each server.
    ///
    /// # Errors
    /// If the URL is wrong, or if its host name can't be resolved.
    pub async fn of(url: &str, max_connections: u32) -> Result<Self, ConnectError> {
        let mut options = parse_url(url).await?;
        options.max_pool_size = Some(max_connections);
        options.min_pool_size = options.min_pool_size.map(|min| min.min(max_connections));
        let ledger = options.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
        Ok(Self { options, ledger })
    }

    pub(super) fn client(&self) -> mongodb::error::Result<Client> {
        Client::with_options(self.options.clone())
    }

    /// Creates a client that exists until the process ends, and checks that the server replies.
    pub async fn connect(&self) -> Result<Databases, ConnectError> {
        let client = self.client().map_err(|error| ConnectError::BadUrl(error_text(&error)))?;
        // Leak a handle of the client, for the same reason as in `MongoLedger::connect`.
        std::mem::forget(client.clone());
        let databases = self.databases(&client);
        let ping = databases.ledger.run_command(doc! { "ping": 1 });
        match tokio::time::timeout(MONGO_OPERATION_TIMEOUT, ping).await {
            Ok(Ok(_)) => Ok(databases),
            Ok(Err(error)) => Err(connect_error(&self.ledger, &error)),
            Err(_) => {
                Err(ConnectError::Unreachable(format!("no response within {} s", MONGO_OPERATION_TIMEOUT.as_secs())))
            }
        }
    }

    pub(super) fn databases(&self, client: &Client) -> Databases {
        let datasets = client.database(&format!("{}{DATASETS_SUFFIX}", self.ledger));
        Databases { ledger: client.database(&self.ledger), datasets }
    }
}

/// The databases of the ledger and of datasets.
#[derive(Clone)]
pub struct Databases {
    pub(super) ledger: Database,
    pub(super) datasets: Database,
}
