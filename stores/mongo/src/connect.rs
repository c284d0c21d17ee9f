//! Connects to the database of a ledger: parses the URL, sets time-outs, creates indexes and checks the layout version.

use std::time::Duration;

use mongodb::{
    Client, Collection, Database, IndexModel,
    bson::{RawDocumentBuf, doc},
    error::{Error, ErrorKind},
    options::{
        Acknowledgment, ClientOptions, CollectionOptions, ConnectionString, IndexOptions, ReadConcern, ReadPreference,
        SelectionCriteria, WriteConcern,
    },
};
use tokio::time::timeout;

use crate::call::{MONGO_OPERATION_TIMEOUT, error_text, is_duplicate_key};
use votes::ConnectError;

/// The name of the database if the URL has none.
pub(super) const DEFAULT_DATABASE: &str = "ovation";

/// The longest time to connect, and to find a primary among the servers, unless the URL sets another time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of connections to a server, unless the URL sets another number. It is greater than the default
/// number of partitions: a consumer has at most one batch of each partition in flight.
const MAX_POOL_SIZE: u32 = 16;

/// The longest time that the servers may take to replicate a write to a majority. It is shorter than
/// [`MONGO_OPERATION_TIMEOUT`], so that the servers report the error.
const MAJORITY_TIMEOUT: Duration = Duration::from_secs(5);

/// The version of the ledger's layout that this program writes and reads: collections, fields and indexes.
const LAYOUT_VERSION: i64 = 2;

/// Connects to the database of a URL, creates missing indexes and checks the layout version.
pub(super) async fn connect(url: &str) -> Result<Database, ConnectError> {
    let options = parse_url(url).await?;
    let name = options.default_database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned());
    let client = Client::with_options(options).map_err(|error| ConnectError::BadUrl(error_text(&error)))?;
    let database = client.database(&name);
    let prepare = async {
        create_indexes(&database).await?;
        ensure_layout_version(&database).await
    };
    match timeout(MONGO_OPERATION_TIMEOUT, prepare).await {
        Ok(Ok(Some(LAYOUT_VERSION))) => Ok(database),
        Ok(Ok(version)) => Err(ConnectError::Refused(format!(
            "the ledger has layout version {}, and this program reads version {LAYOUT_VERSION}: use the \
             release that wrote it, or give another database",
            version.map_or("unknown".to_owned(), |version| version.to_string())
        ))),
        Ok(Err(error)) => Err(connect_error(&name, &error)),
        Err(_) => Err(ConnectError::Unreachable(format!(
            "no response within {} s; if the ledger is missing indexes, the server continues to build them",
            MONGO_OPERATION_TIMEOUT.as_secs()
        ))),
    }
}

/// Returns a collection with the write concern and read concern that counting requires. The URL can't change them.
pub(super) fn majority_collection(database: &Database, collection: &str) -> Collection<RawDocumentBuf> {
    let options = CollectionOptions::builder()
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .read_concern(ReadConcern::majority())
        .write_concern(majority_write_concern());
    database.collection_with_options(collection, options.build())
}

/// Returns the write concern that counting requires.
pub(super) fn majority_write_concern() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(MAJORITY_TIMEOUT).build()
}

/// Parses a URL, and adds the defaults of time-outs and pool size that the URL does not set.
pub(super) async fn parse_url(url: &str) -> Result<ClientOptions, ConnectError> {
    let form = "mongodb://[USER:PASSWORD@]HOST[:27017][,HOST...]/[DATABASE][?OPTION=VALUE&...], and characters like @ \
        or / in a password percent-encoded";
    let url = ConnectionString::parse(url)
        .map_err(|error| ConnectError::BadUrl(format!("{}; give {form}", error_text(&error))))?;
    let mut options = match timeout(MONGO_OPERATION_TIMEOUT, ClientOptions::parse(url)).await {
        Ok(Ok(options)) => options,
        Ok(Err(error)) if matches!(*error.kind, ErrorKind::DnsResolve { .. }) => {
            return Err(ConnectError::Unreachable(error_text(&error)));
        }
        Ok(Err(error)) => return Err(ConnectError::BadUrl(format!("{}; give {form}", error_text(&error)))),
        Err(_) => return Err(ConnectError::Unreachable("the name server does not reply".to_owned())),
    };
    options.app_name.get_or_insert_with(|| "ovation".to_owned());
    options.connect_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.server_selection_timeout.get_or_insert(CONNECT_TIMEOUT);
    options.max_pool_size.get_or_insert(MAX_POOL_SIZE);
    // The driver must not retry writes: counting retries a batch after any error, and recognises votes that an earlier
    // attempt has inserted by their positions. Retries of the driver would double the wait, and for them the servers
    // would have to store a record of each batch.
    options.retry_writes = Some(false);
    Ok(options)
}

/// Creates missing indexes.
async fn create_indexes(database: &Database) -> mongodb::error::Result<()> {
    let indexes = [
        // Reads the duplicates before or after a cut-off.
        ("duplicates", "position", doc! { "partition": 1, "offset": 1 }),
        // Reads and deletes the parts of a summary by generation.
        ("summaries", "generation", doc! { "partition": 1, "generation": 1 }),
        // Reads a range of a partition by offset: for the audit, and to add votes to tallies that have lost them.
        ("votes", "position", doc! { "partition": 1, "offset": 1 }),
        // Reads the newest votes of a contest, or of a band in a contest. The position orders votes of the same
        // millisecond, so the index has the complete order of the result, and reading stops at the end of the page.
        ("votes", "newest", doc! { "contest": 1, "accepted_at": -1, "partition": 1, "offset": -1 }),
        ("votes", "newest_by_name", doc! { "contest": 1, "name": 1, "accepted_at": -1, "partition": 1, "offset": -1 }),
    ];
    // Create them one by one: FerretDB 1.24 crashes if a command has two indexes that already exist.
    for (collection, name, keys) in indexes {
        let collection = majority_collection(database, collection);
        let name = IndexOptions::builder().name(name.to_owned()).build();
        collection.create_index(IndexModel::builder().keys(keys).options(name).build()).await?;
    }
    Ok(())
}

/// Writes the version of the layout if the ledger has none. Returns the version that the ledger then has, or `None` if
/// it is not a number.
async fn ensure_layout_version(database: &Database) -> mongodb::error::Result<Option<i64>> {
    let checkpoints = majority_collection(database, "checkpoints");
    let (layout, version) = (doc! { "_id": "layout" }, doc! { "$setOnInsert": { "version": LAYOUT_VERSION } });
    match checkpoints.update_one(layout.clone(), version).upsert(true).await {
        // Another process may have inserted the document at the same time.
        Err(error) if !is_duplicate_key(&error) => return Err(error),
        _ => {}
    }
    let document = checkpoints.find_one(layout).await?;
    let version = document.as_ref().and_then(|document| document.get("version").ok().flatten());
    Ok(version.and_then(|version| version.as_i64().or_else(|| version.as_i32().map(i64::from))))
}

/// Returns why a server can't be used, in most cases with what to do, and whether a retry may help.
pub(super) fn connect_error(database: &str, error: &Error) -> ConnectError {
    const UNAUTHORIZED: i32 = 13;
    const AUTHENTICATION_FAILED: i32 = 18;
    const INDEX_OPTIONS_CONFLICT: i32 = 85;
    const INDEX_KEY_SPECS_CONFLICT: i32 = 86;

    let problem = error_text(error);
    match &*error.kind {
        ErrorKind::Authentication { .. } => {
            ConnectError::Refused(format!("{problem}; the URL needs a user of this server and the right password"))
        }
        ErrorKind::IncompatibleServer { .. } => ConnectError::Refused(format!("{problem}; use MongoDB 8")),
        ErrorKind::InvalidTlsConfig { .. } => ConnectError::BadUrl(problem),
        ErrorKind::Command(refused) => match refused.code {
            UNAUTHORIZED => {
                ConnectError::Refused(format!("{problem}; the user needs the role readWrite on {database}"))
            }
            AUTHENTICATION_FAILED => {
                ConnectError::Refused(format!("{problem}; the URL needs a user of this server and the right password"))
            }
            INDEX_OPTIONS_CONFLICT | INDEX_KEY_SPECS_CONFLICT => ConnectError::Refused(format!(
                "{problem}; drop that index in {database}, and start again: the required index is then created"
            )),
            _ => ConnectError::Unreachable(problem),
        },
        _ => ConnectError::untrusted(&problem, "tlsCAFile").unwrap_or(ConnectError::Unreachable(problem)),
    }
}
