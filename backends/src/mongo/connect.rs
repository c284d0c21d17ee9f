//! From a URL to a book.

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

use super::{PATIENCE, problem};
use crate::open::NotOpen;

/// The database of a URL that names none.
pub(super) const DATABASE: &str = "ovation";

/// How long is waited for a connection, and for a primary among the servers, unless the URL says otherwise.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Connections to a server, at most, unless the URL says otherwise. A consumer has one batch a partition in flight.
const CONNECTIONS: u32 = 16;

/// How long the servers may try to bring a write to a majority, before they say that they could not. Shorter than
/// [`PATIENCE`], so that it is they who say why.
const MAJORITY_PATIENCE: Duration = Duration::from_secs(5);

/// The database of the URL, reachable and with its indexes.
pub(super) async fn connect(url: &str) -> Result<Database, NotOpen> {
    let options = read_url(url).await?;
    let name = options.default_database.clone().unwrap_or_else(|| DATABASE.to_owned());
    let client = Client::with_options(options).map_err(|error| NotOpen::BadUrl(problem(&error)))?;
    let database = client.database(&name);
    match timeout(PATIENCE, make_indexes(&database)).await {
        Ok(Ok(())) => Ok(database),
        Ok(Err(error)) => Err(not_open(&name, &error)),
        Err(_) => Err(NotOpen::Unreachable(format!(
            "no answer within {} s; the indexes of a book without them take longer to build, which goes on meanwhile",
            PATIENCE.as_secs()
        ))),
    }
}

/// A collection as counting uses it, whatever the URL says.
pub(super) fn counted(database: &Database, collection: &str) -> Collection<RawDocumentBuf> {
    let durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(MAJORITY_PATIENCE);
    let options = CollectionOptions::builder()
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .read_concern(ReadConcern::majority())
        .write_concern(durable.build());
    database.collection_with_options(collection, options.build())
}

pub(super) async fn read_url(url: &str) -> Result<ClientOptions, NotOpen> {
    let right = "mongodb://[USER:PASSWORD@]HOST[:27017][,HOST...]/[DATABASE][?OPTION=VALUE&...], and characters like @ \
        or / in a password percent-encoded";
    let url =
        ConnectionString::parse(url).map_err(|error| NotOpen::BadUrl(format!("{}; give {right}", problem(&error))))?;
    let mut options = match timeout(PATIENCE, ClientOptions::parse(url)).await {
        Ok(Ok(options)) => options,
        Ok(Err(error)) if matches!(*error.kind, ErrorKind::DnsResolve { .. }) => {
            return Err(NotOpen::Unreachable(problem(&error)));
        }
        Ok(Err(error)) => return Err(NotOpen::BadUrl(format!("{}; give {right}", problem(&error)))),
        Err(_) => return Err(NotOpen::Unreachable("the name server does not answer".to_owned())),
    };
    options.app_name.get_or_insert_with(|| "ovation".to_owned());
    options.connect_timeout.get_or_insert(CONNECT_PATIENCE);
    options.server_selection_timeout.get_or_insert(CONNECT_PATIENCE);
    options.max_pool_size.get_or_insert(CONNECTIONS);
    // Whoever counts repeats a batch after any error, and recognises by their places the votes that an unanswered insert
    // has left. The driver repeating it too would only double the wait, and the servers would keep a record of each
    // batch for it.
    options.retry_writes = Some(false);
    Ok(options)
}

/// Makes the indexes that are not there yet.
async fn make_indexes(database: &Database) -> mongodb::error::Result<()> {
    let indexes = [
        // What is below a cut-off, and what repeats it.
        ("repeats", "place", doc! { "partition": 1, "offset": 1 }),
        // Folding the book into tallies that fell back, and the audit: a range of a partition, by offset.
        ("votes", "place", doc! { "partition": 1, "offset": 1 }),
        // People's questions, the newest votes of a contest or of a band in it. The place tells votes of one millisecond
        // apart: with it the index has the answer's whole order, and reading stops at the page's end.
        ("votes", "newest", doc! { "contest": 1, "accepted_at": -1, "partition": 1, "offset": -1 }),
        ("votes", "newest_by_name", doc! { "contest": 1, "name": 1, "accepted_at": -1, "partition": 1, "offset": -1 }),
    ];
    // One by one: FerretDB 1.24 dies of a command that has two indexes which are there already.
    for (collection, name, keys) in indexes {
        let collection = counted(database, collection);
        let name = IndexOptions::builder().name(name.to_owned()).build();
        collection.create_index(IndexModel::builder().keys(keys).options(name).build()).await?;
    }
    Ok(())
}

pub(super) fn not_open(database: &str, error: &Error) -> NotOpen {
    const UNAUTHORIZED: i32 = 13;
    const AUTHENTICATION_FAILED: i32 = 18;
    const INDEX_OPTIONS_CONFLICT: i32 = 85;
    const INDEX_KEY_SPECS_CONFLICT: i32 = 86;

    let problem = problem(error);
    match &*error.kind {
        ErrorKind::Authentication { .. } => {
            NotOpen::Refused(format!("{problem}; the URL needs a user of this server and the right password"))
        }
        ErrorKind::IncompatibleServer { .. } => NotOpen::Refused(format!("{problem}; MongoDB 8 is known to work")),
        ErrorKind::InvalidTlsConfig { .. } => NotOpen::BadUrl(problem),
        ErrorKind::Command(refused) => match refused.code {
            UNAUTHORIZED => NotOpen::Refused(format!("{problem}; the user needs the role readWrite on {database}")),
            AUTHENTICATION_FAILED => {
                NotOpen::Refused(format!("{problem}; the URL needs a user of this server and the right password"))
            }
            INDEX_OPTIONS_CONFLICT | INDEX_KEY_SPECS_CONFLICT => NotOpen::Refused(format!(
                "{problem}; drop that index of the collection votes in {database}, and the right one is made"
            )),
            _ => NotOpen::Unreachable(problem),
        },
        _ => NotOpen::untrusted(&problem, "tlsCAFile").unwrap_or(NotOpen::Unreachable(problem)),
    }
}
