//! The operator's commands on the real engines: proof, replay and dead letters.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use redis::Commands;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Addresses, PATIENCE, Servers, System, json, wait_for};

/// A system on servers, with some votes counted.
fn voted(votes: u64) -> (Servers, System, TempDir) {
    let (servers, folder) = (Servers::fresh(), tempfile::tempdir().unwrap());
    let system = start(&servers, &folder);
    vote(&system, votes);
    (servers, system, folder)
}

fn start(servers: &Servers, folder: &TempDir) -> System {
    System::start_with(&folder.path().join("data"), Addresses::free(), &servers.urls.flags())
}

/// Casts votes for 90 bands and waits until they are counted.
fn vote(system: &System, votes: u64) {
    let before = system.total("bands");
    for first in (0..votes).step_by(1_000) {
        let batch: Vec<_> =
            (first..votes.min(first + 1_000)).map(|n| json!({ "name": format!("Band {}", n % 90) })).collect();
        assert_eq!(system.post_batch(&json!(batch)).0, 200);
    }
    wait_for("all votes to be counted", || system.total("bands") == before + votes);
}

fn redis(servers: &Servers) -> redis::Connection {
    redis::Client::open(servers.urls.tally.split('?').next().unwrap()).unwrap().get_connection().unwrap()
}

/// Puts a record on a topic, as somebody else would.
fn produce(servers: &Servers, topic: &str, key: &[u8], value: &[u8], headers: &[(&str, &str)]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers.urls.brokers()).create().unwrap();
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
    producer.send(BaseRecord::to(topic).partition(2).key(key).payload(value).headers(headers)).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// The key and the value of a topic's first record.
fn first_record(servers: &Servers, topic: &str) -> (Vec<u8>, Vec<u8>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.urls.brokers()).set("group.id", "test");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    (0..12).for_each(|partition| all.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&all).unwrap();
    let message = consumer.poll(PATIENCE).unwrap().unwrap();
    (message.key().unwrap().to_vec(), message.payload().unwrap().to_vec())
}

fn lose_half_the_book(servers: &Servers) {
    let lose = async {
        let client = mongodb::Client::with_uri_str(&servers.urls.book).await.unwrap();
        let votes = client.database(&servers.name).collection::<Document>("votes");
        let lost = votes.delete_many(doc! { "partition": { "$lt": 6 } }).await.unwrap();
        assert!(lost.deleted_count > 0);
    };
    tokio::runtime::Runtime::new().unwrap().block_on(lose);
}

#[test]
fn a_lone_vote_is_counted_soon() {
    let (_servers, system, _folder) = voted(10);
    let mut waits: Vec<Duration> = (11..31)
        .map(|total| {
            let begun = Instant::now();
            assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
            let acknowledged = begun.elapsed();
            wait_for("the vote to be counted", || system.total("bands") == total);
            begun.elapsed().checked_sub(acknowledged).unwrap()
        })
        .collect();
    waits.sort_unstable();
    println!("from acknowledged to visible: median {:?}, most {:?}", waits[10], waits[19]);
    // A tenth of a second is promised on a machine with nothing else to do.
    assert!(waits[10] < Duration::from_secs(1), "{waits:?}");
}

#[test]
fn the_audit_finds_what_was_changed_in_redis() {
    let (servers, mut system, folder) = voted(500);
    assert_eq!(servers.audit()["ok"], true);
    let band = servers.key("tally:bands");
    let _: i64 = redis(&servers).hincr(&band, "Band 7", 1).unwrap();
    let report = servers.audit();
    assert_eq!(report["ok"], false);
    assert!(report["differences"][0].as_str().unwrap().contains("Band 7"), "{report}");
    // A replay mends it, while votes come in.
    assert!(servers.run(&["replay", "tallies"]).status.success());
    vote_until_mended(&system);
    assert_eq!(servers.audit()["ok"], true);
    system.stop();
    assert_eq!(servers.audit()["ok"], true, "the audit of a stopped system");
    drop(folder);
}

fn vote_until_mended(system: &System) {
    assert_eq!(system.post(&json!({ "name": "Genesis" })).0, 202);
    wait_for("the tallies to come back", || system.total("bands") == 501);
}

#[test]
fn lost_tallies_come_back_without_a_vote() {
    let (servers, system, _folder) = voted(300);
    assert!(servers.run(&["replay", "tallies"]).status.success());
    wait_for("the tallies to come back", || system.total("bands") == 300);
    assert_eq!(servers.audit()["ok"], true);
}

#[test]
fn the_book_is_recorded_again_from_the_log() {
    let (servers, mut system, folder) = voted(400);
    let refused = servers.run(&["replay", "book"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop them first"), "{refused:?}");
    system.stop();
    lose_half_the_book(&servers);
    assert_eq!(servers.audit()["ok"], false);
    let replayed = servers.run(&["replay", "book"]);
    assert!(replayed.status.success(), "{replayed:?}");
    let system = start(&servers, &folder);
    wait_for("the book to be whole", || servers.audit()["ok"] == true);
    assert_eq!(system.total("bands"), 400);
}

#[test]
fn a_poison_message_is_put_aside_and_counting_goes_on() {
    let (servers, system, _folder) = voted(100);
    produce(&servers, &servers.name, b"bands|no-vote", b"\xff\xff no vote", &[]);
    // Behind it, on the same partition.
    vote(&system, 200);
    let list = || json(&servers.run(&["dead", "list", "--json"]));
    wait_for("the poison to be put aside", || list().as_array().unwrap().len() == 1);
    let letters = list();
    let letter = &letters[0];
    assert_eq!((letter["partition"].as_u64(), letter["key"].as_str()), (Some(2), Some("bands|no-vote")));
    assert!(letter["reason"].as_str().unwrap().contains("not a vote record"), "{letter}");
    let report = servers.audit();
    assert_eq!((report["ok"].clone(), report["dead"].clone()), (Value::Bool(true), json!(1)));

    // It still can't be read, so reading it again changes nothing.
    let replayed = json(&servers.run(&["dead", "replay", "--json"]));
    assert_eq!(replayed, json!({ "replayed": 0, "unreadable": 1 }));
}

#[test]
fn a_dead_letter_that_can_be_read_now_counts_once() {
    let (servers, system, _folder) = voted(1);
    // A vote that an older version could not read: its record is among the dead letters only.
    let (_, value) = first_record(&servers, &servers.name);
    let place = [("partition", "2"), ("offset", "900"), ("reason", "an older version")];
    produce(&servers, &format!("{}.dead", servers.name), b"bands|of-another-ballot", &value, &place);
    for _ in 0..2 {
        let replayed = json(&servers.run(&["dead", "replay", "--json"]));
        assert_eq!(replayed, json!({ "replayed": 1, "unreadable": 0 }));
    }
    wait_for("both copies to be processed", || {
        let tally = system.results("/v1/contests/bands/tally");
        tally["processed"] == 3 && tally["total"] == 2
    });
    assert_eq!(servers.audit()["duplicates"], 1);
}

#[test]
fn a_check_passes_where_votes_are_counted_and_nowhere_else() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let system = System::start(&folder.path().join("data"));
    let other = System::start(&elsewhere.path().join("data"));
    let (rest, grpc) = (format!("http://{}", system.addresses.rest), format!("http://{}", system.addresses.grpc));
    let check = |results: &System, timeout: &str| {
        let results = format!("http://{}", results.addresses.results);
        tests::run(&["check", "--rest", &rest, "--grpc", &grpc, "--results", &results, "--timeout", timeout, "--json"])
    };
    let passed = check(&system, "60s");
    assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
    assert_eq!((tests::json(&passed)["total"].as_u64(), system.total("bands")), (Some(2), 2));

    let failed = check(&other, "2s");
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("is not in the book"), "{said}");
}
