//! Tests of the ports with a real server.
//!
//! `OVATION_LEDGER` names the server. Each test creates its own database there, and drops it.
#![allow(clippy::unwrap_used)]

mod cost;
mod outages;
mod summary;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Bson, DateTime, Document, doc},
    error::{Error, ErrorKind},
};
use query::{Datasets, Imports, QueryStore};
use uuid::Uuid;
use votes::{
    Advanced, BallotKey, Checkpoint, ConnectError, Duplicate, Ledger, LoggedVote, Offset, Partition, Store,
    WholeLedger,
    conformance::{NOON, key, logged, vote_id},
};

use crate::{
    DirectQueryStore, MongoDatasets, MongoImports, MongoLedger, MongoQueryStore,
    databases::Server,
    document::vote_document,
    insert::{duplicates_in, refused_documents},
};

const P: Partition = Partition(3);

/// A database that is dropped when the test ends, even if the test fails.
struct Scratch {
    server: String,
    options: String,
    name: String,
}

impl Scratch {
    fn new() -> Self {
        let url = std::env::var("OVATION_LEDGER").expect(
            "these tests need a MongoDB server, which OVATION_LEDGER names: `dev/stack up && export $(dev/stack env)` starts \
             a server and sets this variable",
        );
        let (url, options) = url.split_once('?').unwrap_or((&url, "appName=tests"));
        let rest = url.strip_prefix("mongodb://").expect("OVATION_LEDGER begins with mongodb://");
        let server = rest.split('/').next().expect("a server").to_owned();
        Self { server, options: options.to_owned(), name: format!("test_{}", Uuid::now_v7().simple()) }
    }

    fn url(&self) -> String {
        self.url_at(&self.server)
    }

    /// Returns the URL of the database at another address.
    fn url_at(&self, server: &str) -> String {
        format!("mongodb://{server}/{}?{}", self.name, self.options)
    }

    async fn open(&self) -> Arc<MongoLedger> {
        Arc::new(MongoLedger::connect(&self.url()).await.unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (url, name) = (self.url(), self.name.clone());
        let drop = async move {
            let client = Client::with_uri_str(url).await?;
            client.database(&format!("{name}_datasets")).drop().await?;
            client.database(&name).drop().await
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime().block_on(drop)).join().unwrap().unwrap();
    }
}

mod ledger {
    use super::*;

    async fn open() -> (Arc<dyn WholeLedger>, Scratch) {
        let scratch = Scratch::new();
        (scratch.open().await, scratch)
    }

    votes::ledger_conformance!(open);
}

mod query_store {
    use super::*;

    async fn open() -> (Arc<dyn WholeLedger>, Arc<dyn Datasets>, Arc<dyn QueryStore>, Scratch) {
        let scratch = Scratch::new();
        let databases = Server::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        let datasets = Arc::new(MongoDatasets::new(&databases));
        (scratch.open().await, datasets, Arc::new(MongoQueryStore::new(databases)), scratch)
    }

    query::query_store_conformance!(open);
}

mod scans {
    use super::*;

    async fn open() -> (Arc<dyn WholeLedger>, Arc<dyn Datasets>, Arc<dyn QueryStore>, Scratch) {
        let scratch = Scratch::new();
        let databases = Server::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        let datasets = Arc::new(MongoDatasets::new(&databases));
        (scratch.open().await, datasets, Arc::new(MongoQueryStore::with_max_scanned_rows(100, databases)), scratch)
    }

    query::query_store_conformance!(open: queries_that_examine_more_than_a_hundred_rows_are_refused);
}

mod direct {
    use super::*;

    async fn open() -> (Arc<dyn WholeLedger>, Arc<dyn Datasets>, Arc<dyn QueryStore>, Scratch) {
        let scratch = Scratch::new();
        let server = Server::of(&scratch.url(), 1).await.unwrap();
        let datasets = Arc::new(MongoDatasets::new(&server.connect().await.unwrap()));
        (scratch.open().await, datasets, Arc::new(DirectQueryStore::new(server)), scratch)
    }

    query::query_store_conformance!(open: votes_come_newest_first any_name_is_found pages_by_cursor_return_every_row);
}

mod imports {
    use super::*;

    async fn open() -> (Arc<dyn Imports>, Scratch) {
        let scratch = Scratch::new();
        let databases = Server::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        (Arc::new(MongoImports::new(&databases)), scratch)
    }

    query::imports_conformance!(open);
}

mod datasets {
    use super::*;

    async fn open() -> (Arc<dyn Datasets>, Arc<dyn QueryStore>, Scratch) {
        let scratch = Scratch::new();
        let databases = Server::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        (Arc::new(MongoDatasets::new(&databases)), Arc::new(MongoQueryStore::new(databases)), scratch)
    }

    query::datasets_conformance!(open);
}

mod counting {
    use stores_sqlite::Embedded;
    use votes::Tallies;

    use super::*;

    async fn open() -> (Arc<dyn WholeLedger>, Arc<dyn Tallies>, impl Sized) {
        let scratch = Scratch::new();
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(&folder.path().join("data"), 100, metrics::Gauge::noop()).unwrap();
        (scratch.open().await, Arc::clone(&embedded.tallies), (scratch, folder))
    }

    votes::counting_conformance!(open);
}

fn batch(votes: impl IntoIterator<Item = u64>) -> Arc<[LoggedVote]> {
    votes.into_iter().map(|n| logged(n, P, n)).collect()
}

fn at(offset: u64) -> votes::LogPosition {
    votes::LogPosition { partition: P, offset: Offset(offset) }
}

#[tokio::test]
async fn documents_have_the_documented_fields() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let last = Some((Offset(6), vote_id(6)));
    ledger.insert(batch([6, 7])).await.unwrap();
    ledger.advance_checkpoint(P, Offset(0), Checkpoint { offset: Offset(8), last, cut_off: Offset(0) }).await.unwrap();

    let database = Client::with_uri_str(scratch.url()).await.unwrap().database(&scratch.name);
    let read = |collection: &str, id: String| {
        let collection = database.collection::<Document>(collection);
        async move { collection.find_one(doc! { "_id": id }).await.unwrap().unwrap() }
    };
    let full = logged(6, P, 6).vote;
    let expected = doc! {
        "_id": format!("bands|{}", full.vote_id),
        "vote_id": full.vote_id.to_string(),
        "contest": "bands",
        "name": "Band 6",
        "album": "Album 0",
        "year": 1976,
        "rank": 6.5,
        "voter": full.voter.unwrap().to_string(),
        "accepted_at": DateTime::from_millis(NOON.0 + 42),
        "producer": "rest",
        "partition": 3,
        "offset": 6_i64,
    };
    assert_eq!(read("votes", full.key.as_str().to_owned()).await, expected);
    let sparse = read("votes", key(7).as_str().to_owned()).await;
    assert!(!sparse.contains_key("album") && !sparse.contains_key("voter"), "{sparse}");
    let duplicate = Duplicate { position: at(9), key: key(7), original: Offset(7) };
    assert!(ledger.record_duplicates(vec![duplicate]).await.unwrap());
    let marked = read("votes", key(7).as_str().to_owned()).await;
    assert_eq!(marked.get_i64("last_duplicate").unwrap(), 9);
    let expected = doc! { "_id": "3/9", "partition": 3, "offset": 9_i64, "key": key(7).as_str(), "original": 7_i64 };
    assert_eq!(read("duplicates", "3/9".to_owned()).await, expected);
    let expected = doc! { "_id": "3", "offset": 8_i64, "last_offset": 6_i64, "last_vote_id": full.vote_id.to_string() };
    assert_eq!(read("checkpoints", "3".to_owned()).await, expected);
    let mut indexes = database.collection::<Document>("votes").list_index_names().await.unwrap();
    indexes.sort();
    assert_eq!(indexes, ["_id_", "newest", "newest_by_name", "position"]);
}

#[tokio::test]
async fn a_ledger_that_is_opened_again_has_its_votes() {
    let scratch = Scratch::new();
    scratch.open().await.insert(batch(0..3)).await.unwrap();
    let again = scratch.open().await;
    assert_eq!(again.insert(batch(0..3)).await.unwrap().len(), 3);
    let details = again.check().await.unwrap();
    assert_eq!(details["write_concern"], "majority, journaled");
    assert!(details["version"].starts_with(|digit: char| digit.is_ascii_digit()), "{details:?}");
    assert!(details.contains_key("topology"), "{details:?}");
}

#[tokio::test]
async fn a_ledger_of_another_layout_version_is_refused() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let checkpoints = ledger.database.collection::<Document>("checkpoints");
    let layout = checkpoints.find_one(doc! { "_id": "layout" }).await.unwrap();
    assert_eq!(layout, Some(doc! { "_id": "layout", "version": 2_i64 }));
    for version in [Bson::Int32(1), Bson::Int32(3), Bson::Int64(0), Bson::String("none".to_owned())] {
        let set = doc! { "$set": { "version": version.clone() } };
        checkpoints.update_one(doc! { "_id": "layout" }, set).await.unwrap();
        let Err(ConnectError::Refused(problem)) = MongoLedger::connect(&scratch.url()).await else {
            panic!("layout version {version} was accepted");
        };
        assert!(problem.contains("the ledger has layout version"), "{problem}");
    }
}

#[tokio::test]
async fn duplicates_in_a_large_batch_are_returned_by_index() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let known: Vec<usize> = vec![0, 1, 99, 100, 101, 500, 999];
    ledger.insert(batch(known.iter().map(|index| *index as u64))).await.unwrap();
    let mut returned = ledger.insert(batch(0..1_000)).await.unwrap();
    returned.sort_unstable();
    assert_eq!(returned, known);
    let all = ledger.range(P, Offset(0), Offset(1_000), usize::MAX).await.unwrap();
    assert_eq!(all, batch(0..1_000).to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_of_a_shared_command_gets_its_own_duplicates() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let of_partition = |partition: u16| -> Arc<[LoggedVote]> {
        let first = u64::from(partition) * 1_000;
        (0..50).map(|offset| logged(first + offset, Partition(partition), offset)).collect()
    };
    // Two votes of each partition are already in the ledger, at different indexes.
    let known = |partition: u16| vec![usize::from(partition), usize::from(partition) + 20];
    for partition in 0..12 {
        let votes = of_partition(partition);
        ledger.insert(known(partition).into_iter().map(|index| votes[index].clone()).collect()).await.unwrap();
    }
    let inserts = (0..12).map(|partition| {
        let (ledger, votes) = (Arc::clone(&ledger), of_partition(partition));
        tokio::spawn(async move { ledger.insert(votes).await.unwrap() })
    });
    for (partition, insert) in (0..12).zip(inserts.collect::<Vec<_>>()) {
        let mut returned = insert.await.unwrap();
        returned.sort_unstable();
        assert_eq!(returned, known(partition), "partition {partition}");
        let stored = ledger.range(Partition(partition), Offset(0), Offset(50), 50).await.unwrap();
        assert_eq!(stored, of_partition(partition).to_vec());
    }
}

#[tokio::test]
async fn other_batches_are_inserted_if_the_caller_that_started_sending_is_aborted() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let insert = |n: u64| {
        let ledger = Arc::clone(&ledger);
        async move { ledger.insert(batch([n])).await }
    };
    // On one thread all three batches are queued before one is sent. The first caller is aborted before it gets its
    // result.
    let (first, second, third) = (tokio::spawn(insert(1)), tokio::spawn(insert(2)), tokio::spawn(insert(3)));
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), Vec::<usize>::new());
    assert_eq!(third.await.unwrap().unwrap(), Vec::<usize>::new());
    assert_eq!(ledger.positions_of(vec![key(2), key(3)]).await.unwrap(), vec![Some(at(2)), Some(at(3))]);
}

#[tokio::test]
async fn positions_are_returned_in_the_order_of_the_keys() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    ledger.insert(batch(0..300)).await.unwrap();
    let keys = (0..600).rev().chain([7, 7]).map(key).collect();
    let positions = (0..600).rev().chain([7, 7]).map(|n| (n < 300).then(|| at(n))).collect::<Vec<_>>();
    assert_eq!(ledger.positions_of(keys).await.unwrap(), positions);
    assert_eq!(ledger.positions_of(Vec::new()).await.unwrap(), Vec::new());
}

#[tokio::test]
async fn an_empty_batch_and_an_empty_range_are_allowed() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    assert_eq!(ledger.insert(Arc::from([])).await.unwrap(), Vec::<usize>::new());
    ledger.insert(batch(0..3)).await.unwrap();
    // To MongoDB, a limit of 0 is no limit.
    assert_eq!(ledger.range(P, Offset(0), Offset(3), 0).await.unwrap(), Vec::new());
    assert_eq!(ledger.range(P, Offset(0), Offset(u64::MAX), usize::MAX).await.unwrap(), batch(0..3).to_vec());
}

#[tokio::test]
async fn a_refused_document_is_an_error_and_not_a_duplicate() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    ledger.insert(batch([1])).await.unwrap();
    let mut votes = batch(0..4).to_vec();
    // 17 MB is more than a document may have. No producer accepts such a vote.
    votes[2].vote.name = "x".repeat(17 << 20);
    let error = ledger.insert(votes.into()).await.unwrap_err().to_string();
    assert!(error.starts_with("ledger: ") && error.contains("bytes"), "{}", &error[..error.len().min(300)]);
}

#[test]
fn only_the_error_code_of_a_duplicate_key_is_a_duplicate() {
    let result = |reply: Document| {
        let error = mongodb::bson::deserialize_from_document(reply).unwrap();
        let refused = refused_documents(Error::from(ErrorKind::InsertMany(error)));
        refused.and_then(|refused| duplicates_in(&refused, 5..10)).map_err(|error| error.to_string())
    };
    let known = doc! { "index": 7, "code": 11_000, "errmsg": "E11000 duplicate key error" };
    assert_eq!(result(doc! { "writeErrors": [&known] }), Ok(vec![2]));
    let of_another_batch = doc! { "index": 4, "code": 121, "errmsg": "Document failed validation" };
    assert_eq!(result(doc! { "writeErrors": [of_another_batch, &known] }), Ok(vec![2]));
    let invalid = doc! { "index": 8, "code": 121, "errmsg": "Document failed validation" };
    let error = result(doc! { "writeErrors": [&known, invalid] }).unwrap_err();
    assert_eq!(error, "ledger: vote 3 of the batch was refused: Document failed validation (code 121)");
    let timed_out =
        doc! { "code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waiting for replication timed out" };
    let error = result(doc! { "writeErrors": [known], "writeConcernError": timed_out }).unwrap_err();
    assert_eq!(error, "ledger: the write did not reach a majority: waiting for replication timed out (code 64)");
}

#[tokio::test]
async fn the_error_for_an_invalid_document_names_the_document_and_the_field() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let database = Client::with_uri_str(scratch.url()).await.unwrap().database(&scratch.name);
    let mut foreign = Document::try_from(vote_document(&logged(1, P, 1))).unwrap();
    // Tools that restore from JSON write small numbers with 32 bits.
    foreign.insert("offset", 1_i32);
    database.collection::<Document>("votes").insert_one(&foreign).await.unwrap();
    assert_eq!(ledger.range(P, Offset(0), Offset(9), 9).await.unwrap(), batch([1]).to_vec());
    foreign.extend(doc! { "_id": "bands|other", "offset": 2_i64, "producer": Bson::Null });
    database.collection::<Document>("votes").insert_one(&foreign).await.unwrap();
    let error = ledger.range(P, Offset(0), Offset(9), 9).await.unwrap_err().to_string();
    assert!(error.contains("bands|other") && error.contains("producer"), "{error}");
    assert_eq!(ledger.positions_of(vec![BallotKey::stored("bands|other")]).await.unwrap(), vec![Some(at(2))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_consumers_raise_a_checkpoint_to_the_highest_offset() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    for partition in (0..8).map(Partition) {
        // All consumers begin at 0, so all try to insert the first checkpoint, and no consumer finds a hole. FerretDB
        // needs a patch of `dev/stack` to update a document atomically.
        let race = (1..=6).map(|to| {
            let ledger = Arc::clone(&ledger);
            let checkpoint =
                Checkpoint { offset: Offset(to * 10), last: Some((Offset(to), vote_id(to))), cut_off: Offset(0) };
            tokio::spawn(async move { ledger.advance_checkpoint(partition, Offset(0), checkpoint).await.unwrap() })
        });
        for racer in race.collect::<Vec<_>>() {
            assert_eq!(racer.await.unwrap(), Advanced::Done);
        }
        let winner = Checkpoint { offset: Offset(60), last: Some((Offset(6), vote_id(6))), cut_off: Offset(0) };
        assert_eq!(ledger.checkpoint(partition).await.unwrap(), winner);
    }
}

#[tokio::test]
async fn the_error_for_a_wrong_url_contains_the_correct_form() {
    for (url, form) in [
        ("mongodb://", "mongodb://[USER:PASSWORD@]HOST"),
        ("mongodb://user:p@ss@host/ovation", "percent-encoded"),
        ("mongodb://host/ovation?w=many&maxPoolSize=few", "OPTION=VALUE"),
        ("mongodb://host/a b$c", "/[DATABASE]"),
    ] {
        match MongoLedger::connect(url).await {
            Err(ConnectError::BadUrl(problem)) => assert!(problem.contains(form), "{url}: {problem}"),
            Err(other) => panic!("{url}: {other:?}"),
            Ok(_) => panic!("{url} was opened"),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_down_is_unreachable() {
    let begun = Instant::now();
    match MongoLedger::connect("mongodb://127.0.0.1:1/ovation").await {
        Err(ConnectError::Unreachable(problem)) => {
            assert!(problem.contains("127.0.0.1:1") && problem.contains("refused"), "{problem}");
            assert!(!problem.contains("labels"), "{problem}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
