//! The book on a real server keeps every promise of the port.
//!
//! The server is the one that `OVATION_BOOK` names; each test has a database of its own there, and drops it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Bson, DateTime, Document, doc},
    error::{Error, ErrorKind},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use uuid::Uuid;
use votes::{
    Advanced, Archive, BallotKey, Book, Checkpoint, Datasets, Imports, LoggedVote, Offset, Partition, Store, Table,
    conformance::{NOON, key, logged, vote_id},
    query::{Query, Schema},
};

use super::{
    DirectArchive, MongoArchive, MongoBook, MongoDatasets, MongoImports, Place,
    document::of_vote,
    insert::{duplicates, refused},
};
use crate::open::NotOpen;

const P: Partition = Partition(3);

/// A database that goes when the test ends, however it ends.
struct Scratch {
    server: String,
    options: String,
    name: String,
}

impl Scratch {
    fn new() -> Self {
        let url = std::env::var("OVATION_BOOK").expect(
            "these tests need a MongoDB server and find it by OVATION_BOOK: `dev/stack up && export $(dev/stack env)` starts \
             one and sets that",
        );
        let (url, options) = url.split_once('?').unwrap_or((&url, "appName=tests"));
        let rest = url.strip_prefix("mongodb://").expect("OVATION_BOOK begins with mongodb://");
        let server = rest.split('/').next().expect("a server").to_owned();
        Self { server, options: options.to_owned(), name: format!("test_{}", Uuid::now_v7().simple()) }
    }

    fn url(&self) -> String {
        self.url_by(&self.server)
    }

    /// The database by way of another server.
    fn url_by(&self, server: &str) -> String {
        format!("mongodb://{server}/{}?{}", self.name, self.options)
    }

    async fn open(&self) -> Arc<MongoBook> {
        Arc::new(MongoBook::connect(&self.url()).await.unwrap())
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

mod book {
    use super::*;

    async fn open() -> (Arc<dyn Book>, Scratch) {
        let scratch = Scratch::new();
        (scratch.open().await, scratch)
    }

    votes::book_conformance!(open);
}

mod archive {
    use super::*;

    async fn open() -> (Arc<dyn Book>, Arc<dyn Datasets>, Arc<dyn Archive>, Scratch) {
        let scratch = Scratch::new();
        let databases = Place::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        let datasets = Arc::new(MongoDatasets::new(&databases));
        (scratch.open().await, datasets, Arc::new(MongoArchive::new(databases)), scratch)
    }

    votes::archive_conformance!(open);
}

mod scans {
    use super::*;

    async fn open() -> (Arc<dyn Book>, Arc<dyn Datasets>, Arc<dyn Archive>, Scratch) {
        let scratch = Scratch::new();
        let databases = Place::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        let datasets = Arc::new(MongoDatasets::new(&databases));
        (scratch.open().await, datasets, Arc::new(MongoArchive::bounded_to(100, databases)), scratch)
    }

    votes::archive_conformance!(open: questions_that_look_at_more_than_a_hundred_rows_are_refused);
}

mod direct {
    use super::*;

    async fn open() -> (Arc<dyn Book>, Arc<dyn Datasets>, Arc<dyn Archive>, Scratch) {
        let scratch = Scratch::new();
        let place = Place::of(&scratch.url(), 1).await.unwrap();
        let datasets = Arc::new(MongoDatasets::new(&place.connect().await.unwrap()));
        (scratch.open().await, datasets, Arc::new(DirectArchive::new(place)), scratch)
    }

    votes::archive_conformance!(open: votes_come_newest_first any_name_is_found pages_by_cursor_are_the_whole_answer);
}

mod imports {
    use super::*;

    async fn open() -> (Arc<dyn Imports>, Scratch) {
        let scratch = Scratch::new();
        let databases = Place::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        (Arc::new(MongoImports::new(&databases)), scratch)
    }

    votes::imports_conformance!(open);
}

mod datasets {
    use super::*;

    async fn open() -> (Arc<dyn Datasets>, Arc<dyn Archive>, Scratch) {
        let scratch = Scratch::new();
        let databases = Place::of(&scratch.url(), 4).await.unwrap().connect().await.unwrap();
        (Arc::new(MongoDatasets::new(&databases)), Arc::new(MongoArchive::new(databases)), scratch)
    }

    votes::datasets_conformance!(open);
}

#[cfg(feature = "embedded")]
mod counting {
    use votes::Tallies;

    use super::*;
    use crate::embedded::Embedded;

    async fn open() -> (Arc<dyn Book>, Arc<dyn Tallies>, impl Sized) {
        let scratch = Scratch::new();
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(&folder.path().join("data"), 100).unwrap();
        (scratch.open().await, Arc::clone(&embedded.tallies), (scratch, folder))
    }

    votes::counting_conformance!(open);
}

fn batch(votes: impl IntoIterator<Item = u64>) -> Arc<[LoggedVote]> {
    votes.into_iter().map(|n| logged(n, P, n)).collect()
}

fn at(offset: u64) -> votes::Place {
    votes::Place { partition: P, offset: Offset(offset) }
}

#[tokio::test]
async fn dashboards_and_auditors_find_the_documented_fields() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    let last = Some((Offset(6), vote_id(6)));
    book.insert(batch([6, 7])).await.unwrap();
    book.advance(P, Offset(0), Checkpoint { offset: Offset(8), last, cut_off: Offset(0) }).await.unwrap();

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
        "door": "rest",
        "partition": 3,
        "offset": 6_i64,
    };
    assert_eq!(read("votes", full.key.as_str().to_owned()).await, expected);
    let sparse = read("votes", key(7).as_str().to_owned()).await;
    assert!(!sparse.contains_key("album") && !sparse.contains_key("voter"), "{sparse}");
    let expected = doc! { "_id": "3", "offset": 8_i64, "last_offset": 6_i64, "last_vote_id": full.vote_id.to_string() };
    assert_eq!(read("checkpoints", "3".to_owned()).await, expected);
    let mut indexes = database.collection::<Document>("votes").list_index_names().await.unwrap();
    indexes.sort();
    assert_eq!(indexes, ["_id_", "newest", "newest_by_name", "place"]);
}

#[tokio::test]
async fn a_book_is_opened_again_as_it_was() {
    let scratch = Scratch::new();
    scratch.open().await.insert(batch(0..3)).await.unwrap();
    let again = scratch.open().await;
    assert_eq!(again.insert(batch(0..3)).await.unwrap().len(), 3);
    let facts = again.check().await.unwrap();
    assert_eq!(facts["write_concern"], "majority, journaled");
    assert!(facts["version"].starts_with(|digit: char| digit.is_ascii_digit()), "{facts:?}");
    assert!(facts.contains_key("topology"), "{facts:?}");
}

#[tokio::test]
async fn duplicates_in_a_large_batch_are_named_by_their_index() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    let known: Vec<usize> = vec![0, 1, 99, 100, 101, 500, 999];
    book.insert(batch(known.iter().map(|index| *index as u64))).await.unwrap();
    let mut named = book.insert(batch(0..1_000)).await.unwrap();
    named.sort_unstable();
    assert_eq!(named, known);
    let all = book.range(P, Offset(0), Offset(1_000), usize::MAX).await.unwrap();
    assert_eq!(all, batch(0..1_000).to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_share_a_command_hear_of_their_own_duplicates() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    let of_partition = |partition: u16| -> Arc<[LoggedVote]> {
        let first = u64::from(partition) * 1_000;
        (0..50).map(|offset| logged(first + offset, Partition(partition), offset)).collect()
    };
    // Each partition has other votes in the book already.
    let known = |partition: u16| vec![usize::from(partition), usize::from(partition) + 20];
    for partition in 0..12 {
        let votes = of_partition(partition);
        book.insert(known(partition).into_iter().map(|index| votes[index].clone()).collect()).await.unwrap();
    }
    let inserts = (0..12).map(|partition| {
        let (book, votes) = (Arc::clone(&book), of_partition(partition));
        tokio::spawn(async move { book.insert(votes).await.unwrap() })
    });
    for (partition, insert) in (0..12).zip(inserts.collect::<Vec<_>>()) {
        let mut named = insert.await.unwrap();
        named.sort_unstable();
        assert_eq!(named, known(partition), "partition {partition}");
        let stored = book.range(Partition(partition), Offset(0), Offset(50), 50).await.unwrap();
        assert_eq!(stored, of_partition(partition).to_vec());
    }
}

#[tokio::test]
async fn who_gives_up_waiting_leaves_nobody_behind() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    let insert = |n: u64| {
        let book = Arc::clone(&book);
        async move { book.insert(batch([n])).await }
    };
    // On one thread all three are in line before anything is sent; the first goes before it has heard.
    let (first, second, third) = (tokio::spawn(insert(1)), tokio::spawn(insert(2)), tokio::spawn(insert(3)));
    tokio::task::yield_now().await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), Vec::<usize>::new());
    assert_eq!(third.await.unwrap().unwrap(), Vec::<usize>::new());
    assert_eq!(book.locate(vec![key(2), key(3)]).await.unwrap(), vec![Some(at(2)), Some(at(3))]);
}

#[tokio::test]
async fn places_come_in_the_order_of_the_keys() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    book.insert(batch(0..300)).await.unwrap();
    let keys = (0..600).rev().chain([7, 7]).map(key).collect();
    let places = (0..600).rev().chain([7, 7]).map(|n| (n < 300).then(|| at(n))).collect::<Vec<_>>();
    assert_eq!(book.locate(keys).await.unwrap(), places);
    assert_eq!(book.locate(Vec::new()).await.unwrap(), Vec::new());
}

#[tokio::test]
async fn nothing_is_asked_of_no_votes() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    assert_eq!(book.insert(Arc::from([])).await.unwrap(), Vec::<usize>::new());
    book.insert(batch(0..3)).await.unwrap();
    // A limit of 0 is no limit to MongoDB.
    assert_eq!(book.range(P, Offset(0), Offset(3), 0).await.unwrap(), Vec::new());
    assert_eq!(book.range(P, Offset(0), Offset(u64::MAX), usize::MAX).await.unwrap(), batch(0..3).to_vec());
}

#[tokio::test]
async fn a_refused_document_is_an_error_and_no_duplicate() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    book.insert(batch([1])).await.unwrap();
    let mut votes = batch(0..4).to_vec();
    // No door lets this in: 17 MB, more than a document may have.
    votes[2].vote.name = "x".repeat(17 << 20);
    let error = book.insert(votes.into()).await.unwrap_err().to_string();
    assert!(error.starts_with("book: ") && error.contains("bytes"), "{}", &error[..error.len().min(300)]);
}

#[test]
fn only_duplicates_are_duplicates() {
    let answer = |answer: Document| {
        let error = mongodb::bson::deserialize_from_document(answer).unwrap();
        let refused = refused(Error::from(ErrorKind::InsertMany(error)));
        refused.and_then(|refused| duplicates(&refused, 5..10)).map_err(|error| error.to_string())
    };
    let known = doc! { "index": 7, "code": 11_000, "errmsg": "E11000 duplicate key error" };
    assert_eq!(answer(doc! { "writeErrors": [&known] }), Ok(vec![2]));
    let of_another = doc! { "index": 4, "code": 121, "errmsg": "Document failed validation" };
    assert_eq!(answer(doc! { "writeErrors": [of_another, &known] }), Ok(vec![2]));
    let invalid = doc! { "index": 8, "code": 121, "errmsg": "Document failed validation" };
    let error = answer(doc! { "writeErrors": [&known, invalid] }).unwrap_err();
    assert_eq!(error, "book: vote 3 of the batch is refused: Document failed validation (code 121)");
    let late = doc! { "code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waiting for replication timed out" };
    let error = answer(doc! { "writeErrors": [known], "writeConcernError": late }).unwrap_err();
    assert_eq!(error, "book: votes did not reach a majority: waiting for replication timed out (code 64)");
}

#[tokio::test]
async fn a_document_that_others_wrote_is_named() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    let database = Client::with_uri_str(scratch.url()).await.unwrap().database(&scratch.name);
    let mut foreign = Document::try_from(of_vote(&logged(1, P, 1))).unwrap();
    // As tools that read JSON write it.
    foreign.insert("offset", 1_i32);
    database.collection::<Document>("votes").insert_one(&foreign).await.unwrap();
    assert_eq!(book.range(P, Offset(0), Offset(9), 9).await.unwrap(), batch([1]).to_vec());
    foreign.extend(doc! { "_id": "bands|other", "offset": 2_i64, "door": Bson::Null });
    database.collection::<Document>("votes").insert_one(&foreign).await.unwrap();
    let error = book.range(P, Offset(0), Offset(9), 9).await.unwrap_err().to_string();
    assert!(error.contains("bands|other") && error.contains("door"), "{error}");
    assert_eq!(book.locate(vec![BallotKey::stored("bands|other")]).await.unwrap(), vec![Some(at(2))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_consumers_raise_a_checkpoint_together() {
    let scratch = Scratch::new();
    let book = scratch.open().await;
    for partition in (0..8).map(Partition) {
        // All are from 0, so that all begin the partition, and none finds a hole. FerretDB updates a document atomically only
        // with a patch.
        let race = (1..=6).map(|to| {
            let book = Arc::clone(&book);
            let checkpoint =
                Checkpoint { offset: Offset(to * 10), last: Some((Offset(to), vote_id(to))), cut_off: Offset(0) };
            tokio::spawn(async move { book.advance(partition, Offset(0), checkpoint).await.unwrap() })
        });
        for racer in race.collect::<Vec<_>>() {
            assert_eq!(racer.await.unwrap(), Advanced::Done);
        }
        let winner = Checkpoint { offset: Offset(60), last: Some((Offset(6), vote_id(6))), cut_off: Offset(0) };
        assert_eq!(book.checkpoint(partition).await.unwrap(), winner);
    }
}

#[tokio::test]
async fn a_wrong_url_is_refused_with_what_would_be_right() {
    for (url, right) in [
        ("mongodb://", "mongodb://[USER:PASSWORD@]HOST"),
        ("mongodb://user:p@ss@host/ovation", "percent-encoded"),
        ("mongodb://host/ovation?w=many&maxPoolSize=few", "OPTION=VALUE"),
        ("mongodb://host/a b$c", "/[DATABASE]"),
    ] {
        match MongoBook::connect(url).await {
            Err(NotOpen::BadUrl(problem)) => assert!(problem.contains(right), "{url}: {problem}"),
            Err(other) => panic!("{url}: {other:?}"),
            Ok(_) => panic!("{url} was opened"),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let begun = Instant::now();
    match MongoBook::connect("mongodb://127.0.0.1:1/ovation").await {
        Err(NotOpen::Unreachable(problem)) => {
            assert!(problem.contains("127.0.0.1:1") && problem.contains("refused"), "{problem}");
            assert!(!problem.contains("labels"), "{problem}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// A server's door that can be shut, or left open with nobody answering.
struct Door {
    address: String,
    state: watch::Sender<DoorState>,
}

#[derive(Clone, Copy, PartialEq)]
enum DoorState {
    Open,
    Silent,
    Shut,
}

impl Door {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, mut changes) = watch::channel(DoorState::Open);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if *changes.borrow_and_update() == DoorState::Shut {
                    continue;
                }
                let (mut changes, server) = (changes.clone(), server.clone());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    loop {
                        let state = *changes.borrow_and_update();
                        tokio::select! {
                            _ = copy_bidirectional(&mut client, &mut server), if state == DoorState::Open => return,
                            told = changes.changed() => {
                                if told.is_err() || *changes.borrow() == DoorState::Shut {
                                    return;
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    fn set(&self, state: DoorState) {
        self.state.send_replace(state);
    }
}

/// Waits until the book takes votes again, as a consumer does: by trying.
async fn recovered(book: &MongoBook, votes: Arc<[LoggedVote]>) {
    let trying = async {
        while book.insert(Arc::clone(&votes)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), trying).await.expect("the book takes votes again");
}

async fn fails_in_time_and_recovers(outage: DoorState, words: &[&str]) {
    let scratch = Scratch::new();
    let door = Door::to(scratch.server.clone()).await;
    let url = scratch.url_by(&door.address) + "&directConnection=true";
    let book = MongoBook::connect(&url).await.unwrap();
    book.insert(batch(0..10)).await.unwrap();

    door.set(outage);
    let bound = Duration::from_secs(10);
    let error = timeout(bound, book.insert(batch(10..20))).await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("book: ") && words.iter().any(|word| error.contains(word)), "{error}");
    timeout(bound, book.locate(vec![key(1)])).await.unwrap().unwrap_err();
    timeout(bound, book.check()).await.unwrap().unwrap_err();

    door.set(DoorState::Open);
    recovered(&book, batch(10..20)).await;
    assert_eq!(book.range(P, Offset(0), Offset(99), 99).await.unwrap(), batch(0..20).to_vec());
    book.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_in_time_while_the_server_is_down_and_the_book_recovers() {
    fails_in_time_and_recovers(DoorState::Shut, &["broke", "No available servers", "cleared"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_in_time_while_the_server_hangs_and_the_book_recovers() {
    fails_in_time_and_recovers(
        DoorState::Silent,
        &["no answer within", "timed out", "No available servers", "interrupted"],
    )
    .await;
}

/// CPU time of this process so far, all threads.
fn cpu() -> Duration {
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(std::fs::read_dir("/proc/self/task").unwrap().map(of_thread).sum())
}

/// Prints what `votes` votes took.
async fn measured<T>(what: &str, votes: u64, work: impl Future<Output = T>) -> T {
    let (begun, used) = (Instant::now(), cpu());
    let result = work.await;
    let (took, used) = (begun.elapsed(), cpu().saturating_sub(used));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / votes as f64;
    let rate = votes as f64 / took.as_secs_f64();
    println!("{what:45} {rate:9.0}/s {:7.2} us each, {:6.2} us of our CPU", each(took), each(used));
    result
}

/// `cargo test --release -p backends -- --ignored --nocapture how_fast`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_fast_a_book_is_written_and_asked() {
    const BATCHES: u64 = 20;
    let scratch = Scratch::new();
    let book = scratch.open().await;
    let batches = |from: u64| (from..from + BATCHES).map(|n| batch(n * 1_000..(n + 1) * 1_000)).collect::<Vec<_>>();
    let votes = BATCHES * 1_000;
    for round in 0..2 {
        println!("round {round}");
        let mine = batches(3 * round * BATCHES);
        measured("documents alone", votes, async {
            for batch in &mine {
                std::hint::black_box(batch.iter().map(of_vote).collect::<Vec<_>>());
            }
        })
        .await;
        measured("the driver's insert_many of trees", votes, async {
            for batch in &batches((3 * round + 1) * BATCHES) {
                let documents = batch.iter().map(|logged| Document::try_from(of_vote(logged)).unwrap());
                let documents: Vec<Document> = documents.collect();
                let votes = book.votes.clone_with_type();
                votes.insert_many(documents).ordered(false).await.unwrap();
            }
        })
        .await;
        let raw: Vec<Vec<_>> =
            batches((3 * round + 2) * BATCHES).iter().map(|batch| batch.iter().map(of_vote).collect()).collect();
        measured("the driver's insert_many of bytes", votes, async {
            for batch in &raw {
                book.votes.insert_many(batch).ordered(false).await.unwrap();
            }
        })
        .await;
        measured("insert", votes, async {
            for batch in &mine {
                book.insert(Arc::clone(batch)).await.unwrap();
            }
        })
        .await;
        measured("insert, all of it duplicates", votes, async {
            for batch in &mine {
                assert_eq!(book.insert(Arc::clone(batch)).await.unwrap().len(), 1_000);
            }
        })
        .await;
        measured("locate", votes, async {
            for batch in &mine {
                let keys = batch.iter().map(|logged| logged.vote.key.clone()).collect();
                assert_eq!(book.locate(keys).await.unwrap().len(), 1_000);
            }
        })
        .await;
        measured("range", votes, async {
            for batch in &mine {
                let from = batch[0].place.offset;
                assert_eq!(book.range(P, from, Offset(from.0 + 1_000), 1_000).await.unwrap().len(), 1_000);
            }
        })
        .await;
    }
    let archive = MongoArchive::new(Place::of(&scratch.url(), 1).await.unwrap().connect().await.unwrap());
    for parameters in [[("contest", "bands"), ("limit", "100")].as_slice(), &[("contest", "bands"), ("name", "Band 3")]]
    {
        let query = Query::parse(&Schema::votes(), parameters.iter().copied()).unwrap();
        measured("find, the newest 100", 100, async { archive.find(&Table::Votes, &query).await.unwrap() }).await;
    }
}
